"""The attribute keys of OpenTelemetry's semantic conventions that the rules on keys concern."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


# Keys of the conventions that end in a forbidden word, such as `name`, and describe a thing. All
# of opentelemetry-semantic-conventions 0.66b2, of which a test compares the installed version.
OF_OPENTELEMETRY: Final = frozenset(
    """
    app.screen.name app.widget.name aws.s3.key azure.client.id azure.resource_group.name
    browser.web_vital.name cicd.pipeline.action.name cicd.pipeline.name cicd.pipeline.task.name
    cicd.worker.name cloudfoundry.app.name cloudfoundry.org.name cloudfoundry.space.name
    code.function.name container.csi.plugin.name container.image.name container.name
    container.runtime.name db.client.connection.pool.name db.client.connections.pool.name
    db.collection.name db.cosmosdb.client_id db.elasticsearch.cluster.name
    db.elasticsearch.node.name db.name db.operation.name db.stored_procedure.name db.system.name
    deployment.environment.name deployment.name device.model.name dns.question.name
    elasticsearch.node.name event.name faas.document.name faas.name feature_flag.key
    feature_flag.provider.name file.group.name file.name file.owner.name gcp.gce.instance.name
    gcp.gce.instance_group_manager.name gen_ai.agent.name gen_ai.evaluation.name
    gen_ai.operation.name gen_ai.prompt.name gen_ai.provider.name gen_ai.tool.name
    gen_ai.workflow.name geo.locality.name graphql.operation.name host.cpu.model.name
    host.image.name host.name hw.name k8s.cluster.name k8s.container.name k8s.cronjob.name
    k8s.daemonset.name k8s.deployment.name k8s.hpa.name k8s.hpa.scaletargetref.name k8s.job.name
    k8s.namespace.name k8s.node.name k8s.node.system_container.name k8s.persistentvolume.name
    k8s.persistentvolumeclaim.name k8s.pod.name k8s.replicaset.name
    k8s.replicationcontroller.name k8s.resourcequota.name k8s.service.name k8s.statefulset.name
    k8s.storageclass.name k8s.volume.name log.file.name mainframe.lpar.name mcp.method.name
    mcp.session.id messaging.client.id messaging.consumer.group.name messaging.destination.name
    messaging.destination.subscription.name messaging.destination_publish.name
    messaging.kafka.message.key messaging.operation.name net.host.name net.peer.name
    net.protocol.name net.sock.peer.name network.carrier.name network.interface.name
    network.protocol.name nfs.operation.name onc_rpc.procedure.name onc_rpc.program.name
    openshift.clusterquota.name oracle.db.instance.name oracle.db.name os.name
    otel.component.name otel.event.name otel.library.name otel.scope.name pool.name
    process.executable.name process.real_user.id process.real_user.name process.runtime.name
    process.saved_user.id process.saved_user.name process.user.id process.user.name
    rpc.system.name security_rule.name security_rule.ruleset.name service.name service.peer.name
    telemetry.distro.name telemetry.sdk.name test.case.name test.suite.name thread.name
    tls.protocol.name user_agent.name user_agent.os.name vcs.owner.name vcs.provider.name
    vcs.ref.base.name vcs.ref.head.name vcs.repository.name vcs.repository.ref.name
    webengine.name zos.sysplex.name
    """.split()  # noqa: SIM905 - words are read and sorted more easily so
)


def _any_of(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern).match


# Keys of the conventions that hold what a person is, sends or asks for, by how they are called in
# a message; with their former names, and with underscores where no other key is meant.
NEED_PERMISSION: Final[Mapping[str, Callable[[str], object]]] = {
    "user.*": _any_of(r"user\.|user_(id|email|name|full_name|hash|roles)\Z"),
    "enduser.*": _any_of(r"enduser\.|enduser_(id|pseudo_id|role|scope)\Z"),
    "session.*": _any_of(r"session\.|session_(id|previous_id)\Z"),
    "client.address": _any_of(r"client[._]address\Z|http\.client_ip\Z"),
    "http.*.header.*": _any_of(r"http\.[^.]+\.header\.|http_(request|response)_header_"),
    "db.query.*": _any_of(r"db\.query\.|db_query_(text\Z|summary\Z|parameter_)|db\.statement\Z"),
    "url.full": _any_of(r"url[._]full\Z|http\.url\Z"),
    "url.query": _any_of(r"url[._]query\Z|http\.target\Z"),
}
