"""Training methods: one file each, the same stems as configs/method/."""
