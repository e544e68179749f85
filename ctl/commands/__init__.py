"""The commands: each reads its arguments, calls the contract, and hands the answer to `ctl.render`."""
