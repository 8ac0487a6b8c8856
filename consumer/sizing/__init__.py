"""How much of everything a load needs: computed from measured costs, and tried in a simulation."""
