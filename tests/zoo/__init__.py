"""The zoo: real models of public packages, built small and without weights, each compared with eager."""
