"""Joins what depends on where TokenClients come from: the cluster, or a directory of files."""

import socket
from dataclasses import dataclass

from broker.config import Config
from broker.directory.notes import LoggedEvents, LoggedStatuses
from broker.directory.registry import DirectoryRegistry
from broker.kube.anchors import KubeAnchors
from broker.kube.events import EventSender, KubeEvents, KubeLeaseEvents
from broker.kube.lease import KubeLease
from broker.kube.owners import AccountOwners
from broker.kube.registry import WatchedRegistry
from broker.kube.session import KubeSession
from broker.kube.status import KubeStatusWriter
from broker.metrics.counted import Metrics
from broker.model.lease import Timing
from broker.ports import Anchors, Clock, EventRecorder, LeadRecorder, LiveRegistry, StatusWriter


@dataclass(frozen=True, slots=True)
class Registered:
    """The clients, where what is found out about them is written, and who owns their anchors.

    ``lead`` is None where the broker may record no Events.
    """

    registry: LiveRegistry
    statuses: StatusWriter
    events: EventRecorder
    anchors: Anchors
    lead: LeadRecorder | None


def registered(config: Config, session: KubeSession, clock: Clock, metrics: Metrics) -> Registered:
    """Return the parts for the source that the configuration names."""
    folder, within = config.registry.directory, Timing(config.lease.duration_seconds).margin
    if folder is None:
        sender = EventSender(session, clock, socket.gethostname(), metrics)
        lease = KubeLease(session, config.namespace, config.lease.name)
        lead = KubeLeaseEvents(sender, lease, config.namespace, config.lease.name)
        anchors = KubeAnchors(session, within=within)
        watched = WatchedRegistry(session, metrics)
        return Registered(watched, KubeStatusWriter(session, watched.written), KubeEvents(sender), anchors, lead)
    registry = DirectoryRegistry(folder, config.cluster.name, metrics)
    anchors = KubeAnchors(session, AccountOwners(session), within=within)
    return Registered(registry, LoggedStatuses(registry), LoggedEvents(registry), anchors, None)
