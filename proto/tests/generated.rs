//! The checked-in code is what the `.proto` files say.

#[path = "../codegen.rs"]
mod codegen;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn contents(folder: &Path) -> std::io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut contents = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        contents.insert(entry.file_name().into(), fs::read(entry.path())?);
    }
    Ok(contents)
}

#[test]
fn generating_again_changes_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    codegen::generate(scratch.path()).unwrap();

    let mut written = contents(scratch.path()).unwrap();
    let kept = contents(Path::new(codegen::GENERATED)).unwrap();
    for (name, kept) in kept {
        let written = written
            .remove(&name)
            .unwrap_or_else(|| panic!("{} has no .proto file", name.display()));
        assert!(
            written == kept,
            "{} is out of date: run the example `generate`",
            name.display()
        );
    }
    let missing: Vec<_> = written.into_keys().collect();
    assert!(missing.is_empty(), "not checked in: {missing:?}");
}
