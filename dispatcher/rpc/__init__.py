"""The services of the contracts: parse, call, convert."""
