//! Turns every `.proto` file below `proto/` into Rust; shared by the example that
//! writes `src/generated` and the test that compares with it.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;

/// Where the checked-in result lies.
pub(crate) const GENERATED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/generated");

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");

/// Writes `<package>.rs` for each package and `descriptor.bin` into `out`.
pub(crate) fn generate(out: &Path) -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new([SOURCES])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(sources()?)?;
    let mut files = compiler.file_descriptor_set();

    tonic_prost_build::configure()
        .out_dir(out)
        .emit_rerun_if_changed(false)
        // How to connect is for the crate that dials; here a client takes any service.
        .build_transport(false)
        // Maps in order of their keys, so that equal messages have equal bytes.
        .btree_map(".")
        // They hold a token or a key; `src/debug.rs` prints them without.
        .skip_debug([".connection.PathSegment", ".X509SVID"])
        .compile_fds(files.clone())?;

    // Reflection needs no comments.
    for file in &mut files.file {
        file.source_code_info = None;
    }
    fs::write(out.join("descriptor.bin"), files.encode_to_vec())?;
    Ok(())
}

/// All `.proto` files, in an order that does not depend on the file system.
fn sources() -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(SOURCES)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "proto")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
