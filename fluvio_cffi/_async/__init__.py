"""The client for asyncio and trio. The synchronous twin in `_sync` is generated from these files."""
