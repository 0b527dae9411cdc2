//! Ordered start and shutdown: signals, named subsystems, deadlines
