"""System checks: what an operator should know before anything is started."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004  Django's own name

from coordination.node.membership import NotAMember, require_member, static_members
from gaia_site.env import DiscoveryType


@register()
def check_membership(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The configured members must name this node; an even number of them tolerates no more failures."""
    environment = settings.GAIA
    if not environment.cluster_enabled or environment.cluster_discovery_type is DiscoveryType.DNS:
        return []
    members = static_members(environment.cluster_discovery_nodes, environment)
    if len(members) > 1 and len(members) % 2 == 0:
        hint = f"{len(members)} members survive as many failures as {len(members) - 1}."
        return [
            Warning(
                "CLUSTER_DISCOVERY_NODES names an even number of members.", hint=hint, id="coordination.W001"
            )
        ]
    return []


@register(deploy=True)
def check_node(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """This process's node, if it is one, must be a member."""
    environment = settings.GAIA
    if not environment.cluster_enabled or environment.cluster_discovery_type is DiscoveryType.DNS:
        return []
    try:
        require_member(static_members(environment.cluster_discovery_nodes, environment), environment)
    except NotAMember as error:
        return [Error(str(error), id="coordination.E001")]
    return []
