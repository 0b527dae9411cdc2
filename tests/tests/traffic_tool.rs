//! `carrick traffic` and `carrick bench lb` as their users run them.

#[path = "traffic_tool/bench.rs"]
mod bench;
#[path = "traffic_tool/flows.rs"]
mod flows;
#[path = "traffic_tool/site.rs"]
mod site;
#[path = "traffic_tool/spread.rs"]
mod spread;
