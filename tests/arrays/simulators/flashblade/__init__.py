"""Pure Storage FlashBlade's REST API, 1.x and 2.x over one state: sessions, file systems, hardware, group quotas."""
