//! The chains as they are listed, over real elements and an agent that records:
//! fail everywhere, do all twice, undo all twice, and nothing is left.

mod agent;
mod chain;
mod clock;
mod peers;
mod refusals;
mod restart;
mod steady;
mod world;
