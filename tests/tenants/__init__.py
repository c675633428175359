"""Two tenants on one real daemon: what one has, the other neither sees nor reaches."""
