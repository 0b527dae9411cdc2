use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::service::Problem;

/// Walks through the file and collects what is wrong.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) problems: Vec<Problem>,
}

/// A table of the file, known to hold known keys alone.
#[derive(Debug, Clone)]
pub(super) struct Table<'a> {
    pub(super) path: String,
    entries: Option<&'a Map<String, Value>>,
}

impl<'a> Table<'a> {
    /// What stands under a key; nothing is the same as not being there.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.entries?.get(key).filter(|value| !value.is_null())
    }

    /// The path of a key.
    pub(super) fn at(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// All entries.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.entries.into_iter().flatten()
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// A value as it stands in an error.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a table".to_owned(),
        other => other.to_string(),
    }
}

impl Walk {
    /// Remembers that the value of a field is not what was expected.
    pub(super) fn wrong(
        &mut self,
        field: impl Into<String>,
        value: &Value,
        expected: impl Display,
    ) {
        self.problems.push(Problem {
            field: field.into(),
            value: shown(value),
            expected: expected.to_string(),
        });
    }

    /// A table of these keys; others are told.
    pub(super) fn table<'a>(&mut self, path: &str, value: &'a Value, keys: &[&str]) -> Table<'a> {
        let table = self.any_table(path, value, keys);
        for (key, _) in table.entries() {
            if !keys.contains(&key.as_str()) {
                let expected = format!("a setting; there are {}", keys.join(", "));
                self.wrong(join(path, key), &Value::String(key.clone()), expected);
            }
        }
        table
    }

    /// A table of any keys, `example` being some.
    pub(super) fn any_table<'a>(
        &mut self,
        path: &str,
        value: &'a Value,
        example: &[&str],
    ) -> Table<'a> {
        if !value.is_object() && !value.is_null() {
            let place = if path.is_empty() { "the file" } else { path };
            self.wrong(place, value, format!("a table of {}", example.join(", ")));
        }
        Table {
            path: path.to_owned(),
            entries: value.as_object(),
        }
    }

    /// The table under a key; an empty one where there is none.
    pub(super) fn sub<'a>(&mut self, table: &Table<'a>, key: &str, keys: &[&str]) -> Table<'a> {
        self.table(&table.at(key), table.get(key).unwrap_or(&Value::Null), keys)
    }

    /// The values of a list under a key, each with its path.
    pub(super) fn list<'a>(&mut self, table: &Table<'a>, key: &str) -> Vec<(String, &'a Value)> {
        let Some(value) = table.get(key) else {
            return Vec::new();
        };
        let Some(list) = value.as_array() else {
            self.wrong(table.at(key), value, "a list");
            return Vec::new();
        };
        let path = table.at(key);
        let named = list.iter().enumerate();
        named
            .map(|(n, value)| (format!("{path}[{n}]"), value))
            .collect()
    }

    /// A text that `parse` takes.
    pub(super) fn text<T>(
        &mut self,
        path: impl Into<String>,
        value: &Value,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = match value {
            Value::String(text) => Some(text.clone()),
            // A name or key may look like a number.
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let parsed = text.and_then(|text| parse(text.trim()));
        if parsed.is_none() {
            self.wrong(path, value, expected);
        }
        parsed
    }

    /// The text under a key, if there is one, that `parse` takes.
    pub(super) fn text_at<T>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let value = table.get(key)?;
        self.text(table.at(key), value, expected, parse)
    }

    /// The list of texts under a key that `parse` takes.
    pub(super) fn texts_at<T>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let list = self.list(table, key);
        let parsed = list.into_iter();
        parsed
            .filter_map(|(path, value)| self.text(path, value, expected, &parse))
            .collect()
    }

    /// The number under a key, if there is one.
    pub(super) fn number_at<T: TryFrom<u64>>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        allowed: RangeInclusive<u64>,
    ) -> Option<T> {
        let value = table.get(key)?;
        let number = value.as_u64().filter(|number| allowed.contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            let expected = format!("a number of {} to {}", allowed.start(), allowed.end());
            self.wrong(table.at(key), value, expected);
        }
        number
    }

    /// The time under a key, if there is one.
    pub(super) fn time_at(&mut self, table: &Table<'_>, key: &str) -> Option<Duration> {
        let expected = "a time with its unit, such as 15s or 2h";
        self.text_at(table, key, expected, |text| {
            humantime::parse_duration(text).ok()
        })
    }

    /// One of these words under a key.
    pub(super) fn word_at<T: Copy>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
        let find = |text: &str| {
            words
                .iter()
                .find(|(name, _)| *name == text)
                .map(|(_, word)| *word)
        };
        self.text_at(table, key, &format!("one of {}", names.join(", ")), find)
    }

    /// A thing that is a name, or a table with that name and more: the table,
    /// and the name if there is one. `keys` are those of all names together.
    pub(super) fn named<'a>(
        &mut self,
        table: &Table<'a>,
        key: &str,
        keys: &[&str],
    ) -> (Table<'a>, Option<(String, &'a Value)>) {
        let path = table.at(key);
        let bare = Table {
            path: path.clone(),
            entries: None,
        };
        match table.get(key) {
            None => (bare, None),
            Some(value @ Value::Object(_)) => {
                let inner = self.table(&path, value, keys);
                let name = inner.get("name").unwrap_or(&Value::Null);
                let at = inner.at("name");
                (inner, Some((at, name)))
            }
            Some(name) => (bare, Some((path, name))),
        }
    }
}
