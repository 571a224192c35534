"""The browser dashboard: an aiohttp app, a WebSocket hub, and the page in web/."""
