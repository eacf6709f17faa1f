"""Workers between two queues: tasks or threads that call one function for each item."""
