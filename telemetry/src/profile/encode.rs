//! A profile in the format of `google/pprof` (`proto/profile.proto`): the part
//! of it that a CPU profile needs.

use std::collections::HashMap;
use std::time::UNIX_EPOCH;

use pprof::{Report, Symbol};
use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    text: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// What is being put together. Functions and locations are numbered from 1,
/// texts from 0, the first of which is empty.
struct Builder {
    profile: Profile,
    texts: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
    locations: HashMap<Vec<(u64, i64)>, u64>,
}

/// The bytes of a profile.
pub(super) fn encode(report: &Report) -> Vec<u8> {
    let mut builder = Builder::new();
    for (frames, count) in &report.data {
        let stack = frames.frames.iter();
        let stack = stack.map(|symbols| builder.location(symbols)).collect();
        builder.sample(stack, &frames.thread_name_or_id(), i64_of(*count));
    }
    let timing = &report.timing;
    let start = timing.start_time.duration_since(UNIX_EPOCH);
    let profile = &mut builder.profile;
    profile.time_nanos = i64_of(start.unwrap_or_default().as_nanos());
    profile.duration_nanos = i64_of(timing.duration.as_nanos());
    let period = 1_000_000_000 / i64::from(timing.frequency.max(1));
    builder.finish(period)
}

impl Builder {
    fn new() -> Self {
        Self {
            profile: Profile {
                string_table: vec![String::new()],
                ..Profile::default()
            },
            texts: HashMap::from([(String::new(), 0)]),
            functions: HashMap::new(),
            locations: HashMap::new(),
        }
    }

    fn text(&mut self, text: &str) -> i64 {
        if let Some(known) = self.texts.get(text) {
            return *known;
        }
        let number = i64_of(self.profile.string_table.len());
        self.profile.string_table.push(text.to_owned());
        self.texts.insert(text.to_owned(), number);
        number
    }

    fn location(&mut self, symbols: &[Symbol]) -> u64 {
        let lines: Vec<_> = symbols.iter().map(|s| self.line(s)).collect();
        let locations = &mut self.profile.location;
        *self.locations.entry(lines).or_insert_with_key(|lines| {
            let id = locations.len() as u64 + 1;
            let line = lines
                .iter()
                .map(|&(function_id, line)| Line { function_id, line });
            locations.push(Location {
                id,
                line: line.collect(),
            });
            id
        })
    }

    fn line(&mut self, symbol: &Symbol) -> (u64, i64) {
        let name = self.text(&symbol.name());
        let system_name = self.text(&symbol.sys_name());
        let filename = self.text(&symbol.filename());
        let functions = &mut self.profile.function;
        let id = *self
            .functions
            .entry((system_name, filename))
            .or_insert_with(|| {
                let id = functions.len() as u64 + 1;
                functions.push(Function {
                    id,
                    name,
                    system_name,
                    filename,
                });
                id
            });
        (id, i64::from(symbol.lineno()))
    }

    fn sample(&mut self, location_id: Vec<u64>, thread: &str, count: i64) {
        let label = Label {
            key: self.text("thread"),
            text: self.text(thread),
        };
        self.profile.sample.push(Sample {
            location_id,
            value: vec![count],
            label: vec![label],
        });
    }

    /// Each sample stands for a period, as in the profiles of Go.
    fn finish(mut self, period: i64) -> Vec<u8> {
        let (samples, count) = (self.text("samples"), self.text("count"));
        let (cpu, nanoseconds) = (self.text("cpu"), self.text("nanoseconds"));
        let cpu = ValueType {
            kind: cpu,
            unit: nanoseconds,
        };
        for sample in &mut self.profile.sample {
            sample.value.push(sample.value[0].saturating_mul(period));
        }
        let samples = ValueType {
            kind: samples,
            unit: count,
        };
        self.profile.sample_type = vec![samples, cpu];
        self.profile.period_type = Some(cpu);
        self.profile.period = period;
        self.profile.encode_to_vec()
    }
}

fn i64_of(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
