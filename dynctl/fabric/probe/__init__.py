"""The NIXL probe: transfers made by the engine's own NIXL and UCX in processes of their own, and what they prove."""
