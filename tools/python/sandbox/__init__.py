"""The sandbox: one zygote, forked for each session, whose workers run cells behind walls."""
