//! Generates `src/generated` again after a change to a `.proto` file:
//! `cargo run -p carrick-proto --example generate`.

#[path = "../codegen.rs"]
mod codegen;

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    codegen::generate(Path::new(codegen::GENERATED))
}
