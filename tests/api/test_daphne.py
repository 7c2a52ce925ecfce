"""`daphne gaia_site.asgi:application` serves the whole site as well."""

from __future__ import annotations

import aiohttp

from tests.api.live import DAPHNE, Web


async def test_daphne_alone_serves_hot_calls_django_and_sockets(site):
    web = Web(site.cluster, command=DAPHNE).start()
    try:
        authorization = {"Authorization": f"Bearer {site.secrets['agent']}"}
        async with aiohttp.ClientSession(web.url, headers=authorization) as http:
            wish = {"session_name": "nobody", "lease_token": 1}
            async with http.post("/api/v1/tasks/claim", json=wish) as hot:
                assert hot.status == 404
            async with http.get("/api/v1/tasks") as page:
                assert page.status == 200
            async with http.ws_connect("/ws/coordination/") as link:
                assert (await link.receive_json(timeout=10))["type"]
    finally:
        web.close()
