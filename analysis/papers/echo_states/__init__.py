"""[ESP]: the figure of 'Echo state property linked to an input', with the effective state size of [ESS] beside it."""
