"""Simulators of NetApp ONTAP, WEKA and FlashBlade: REST APIs with state, acting on a directory that stands for the mount."""
