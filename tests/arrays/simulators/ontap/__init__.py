"""NetApp ONTAP's REST API as far as volumes, qtrees, tree quotas and jobs go (ONTAP 9.14's answers)."""
