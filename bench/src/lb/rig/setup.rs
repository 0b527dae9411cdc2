//! A program to measure that is given as an object file, with what its maps shall hold.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya::programs::{Program, ProgramFd};
use nix::libc;

/// Another program, loaded.
pub(in crate::lb) struct Subject {
    object: Ebpf,
    name: String,
}

impl Subject {
    /// Loads the first XDP program of an object file and fills its maps as the other file says, if there is one:
    /// a line per entry, `map key value`, in hexadecimal as they lie in memory; or `map key new TYPE KEY VALUE ENTRIES` for
    /// a map of maps, with the numbers of the kernel's interface.
    pub(in crate::lb) fn load(file: &Path, maps: Option<&Path>) -> Result<Self> {
        let mut object =
            Ebpf::load_file(file).with_context(|| format!("cannot load {}", file.display()))?;
        let xdp = |(name, program): (&str, &Program)| {
            matches!(program, Program::Xdp(_)).then(|| name.to_owned())
        };
        let name = object.programs().find_map(xdp);
        let name = name.with_context(|| format!("{} has no XDP program", file.display()))?;
        if let Some(Program::Xdp(program)) = object.program_mut(&name) {
            program.load().context("the kernel refuses it")?;
        }
        let subject = Self { object, name };
        if let Some(maps) = maps {
            let text = fs::read_to_string(maps)
                .with_context(|| format!("cannot read {}", maps.display()))?;
            subject.fill(&text)?;
        }
        Ok(subject)
    }

    pub(in crate::lb) fn program(&self) -> Result<ProgramFd> {
        match self.object.program(&self.name) {
            Some(Program::Xdp(program)) => Ok(program.fd()?.try_clone()?),
            _ => bail!("{} is gone", self.name),
        }
    }

    fn fill(&self, text: &str) -> Result<()> {
        let maps: HashMap<&str, &MapData> = self
            .object
            .maps()
            .filter_map(|(name, map)| Some((name, data(map)?)))
            .collect();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                entry(&maps, line).with_context(|| format!("line {}: {line}", number + 1))?;
            }
        }
        Ok(())
    }
}

fn entry(maps: &HashMap<&str, &MapData>, line: &str) -> Result<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, key) = (
        words.first().context("no map")?,
        words.get(1).context("no key")?,
    );
    let map = maps
        .get(name)
        .with_context(|| format!("the object has no map {name}"))?;
    let key = bytes(key)?;
    match words[2..] {
        [value] => update(map, &key, &bytes(value)?),
        ["new", kind, key_size, value_size, entries] => {
            let inner = create(
                kind.parse()?,
                key_size.parse()?,
                value_size.parse()?,
                entries.parse()?,
            )?;
            update(map, &key, &inner.as_raw_fd().to_ne_bytes())
        }
        _ => bail!("neither a value nor `new TYPE KEY VALUE ENTRIES`"),
    }
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    ensure!(
        hex.len().is_multiple_of(2) && hex.is_ascii(),
        "{hex}: two digits per byte"
    );
    let byte = |at| {
        u8::from_str_radix(&hex[at..at + 2], 16)
            .with_context(|| format!("{hex} is not hexadecimal"))
    };
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn data(map: &Map) -> Option<&MapData> {
    Some(match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::HashOfMaps(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::Unsupported(data) => data,
        _ => return None,
    })
}

/// `BPF_MAP_UPDATE_ELEM`, for keys and values whose sizes are only known now.
fn update(map: &MapData, key: &[u8], value: &[u8]) -> Result<()> {
    let info = map.info()?;
    let (key_size, value_size) = (info.key_size() as usize, info.value_size() as usize);
    ensure!(
        key.len() == key_size,
        "a key has {key_size} bytes, not {}",
        key.len()
    );
    ensure!(
        value.len() == value_size,
        "a value has {value_size} bytes, not {}",
        value.len()
    );
    let fd = map.fd().as_fd().as_raw_fd();
    let attributes = Update {
        map: u32::try_from(fd)?,
        unused: 0,
        key: key.as_ptr() as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    bpf(2, &attributes).map(drop)
}

/// `BPF_MAP_CREATE`.
fn create(kind: u32, key_size: u32, value_size: u32, entries: u32) -> Result<OwnedFd> {
    let attributes = [kind, key_size, value_size, entries, 0];
    let fd = bpf(0, &attributes)?;
    #[expect(unsafe_code, reason = "the kernel's answer is a number")]
    // SAFETY: the kernel has just given it, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) };
    Ok(fd)
}

#[repr(C)]
struct Update {
    map: u32,
    unused: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn bpf<T>(command: i64, attributes: &T) -> Result<i64> {
    #[expect(
        unsafe_code,
        reason = "no library offers entries whose sizes are only known at run time"
    )]
    // SAFETY: the attributes are those of the command, and what they point to lives until it returns and is as long as
    // the kernel says of the map.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    ensure!(
        result >= 0,
        "the kernel refuses: {}",
        std::io::Error::last_os_error()
    );
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_in_the_order_of_memory() {
        assert_eq!(bytes("0a000001").unwrap(), [10, 0, 0, 1]);
        assert!(bytes("0a0").is_err() && bytes("zz").is_err());
    }
}
