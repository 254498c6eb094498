"""[PoST]: 'Optimal decay spectra for linear recurrences', and the initial spectra of S4D, HiPPO and the LRU beside its own."""
