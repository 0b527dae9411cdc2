//! A rig that measures a packet program with any number of flows.
