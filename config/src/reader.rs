use std::collections::BTreeMap;
use std::fmt::Write as _;

use carrick_types::Invalid;

/// Where settings come from; a trait so that tests need no environment.
pub trait Source {
    /// The text of a variable; `None` where it is not set.
    fn text(&self, name: &str) -> Option<String>;
}

/// The environment of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Env;

impl Source for Env {
    fn text(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

impl Source for BTreeMap<String, String> {
    fn text(&self, name: &str) -> Option<String> {
        self.get(name).cloned()
    }
}

impl Source for BTreeMap<&str, &str> {
    fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|&text| text.to_owned())
    }
}

/// One setting: a line of the table in the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name in the environment.
    pub name: &'static str,
    /// What holds where it is not set; in the form in which it would be set.
    pub default: &'static str,
    /// What it means, with unit and range.
    pub meaning: &'static str,
}

/// The table of `variables` as it stands in the documentation.
#[must_use]
pub fn markdown(variables: &[Variable]) -> String {
    let mut table = String::from("| name | default | meaning |\n|---|---|---|\n");
    for Variable {
        name,
        default,
        meaning,
    } in variables
    {
        let default = if default.is_empty() {
            "(empty)"
        } else {
            default
        };
        let default = default.replace('|', "\\|");
        writeln!(table, "| `{name}` | `{default}` | {meaning} |").expect("a String takes all text");
    }
    table
}

/// Everything that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has {} mistake(s):{}", .0.len(), lines(.0))]
pub struct Mistakes(pub Vec<Invalid>);

fn lines(mistakes: &[Invalid]) -> String {
    mistakes.iter().fold(String::new(), |text, mistake| {
        text + "\n  " + &mistake.to_string()
    })
}

/// Turns settings into values and collects the mistakes.
pub struct Reader<'a> {
    source: &'a dyn Source,
    variables: &'static [Variable],
    mistakes: Vec<Invalid>,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("mistakes", &self.mistakes)
            .finish_non_exhaustive()
    }
}

impl<'a> Reader<'a> {
    /// Reads `variables` from `source`.
    #[must_use]
    pub fn new(source: &'a dyn Source, variables: &'static [Variable]) -> Self {
        Self {
            source,
            variables,
            mistakes: Vec::new(),
        }
    }

    /// The value of a variable, by `parse` from its text or its default. After a
    /// mistake, which is remembered, it is the default, so that whoever reads on
    /// finds the other mistakes, too.
    ///
    /// # Panics
    ///
    /// The table has no such variable, or its default is a mistake; a test that
    /// reads everything from an empty source finds both.
    pub fn read<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Option<T> {
        let variable = self.variables.iter().find(|variable| variable.name == name);
        let variable = variable.unwrap_or_else(|| panic!("{name} is not in the table"));
        // As with NSM's programs, what is set to nothing is nothing, not the default.
        let text = self.source.text(name);
        let value = parse(text.as_deref().unwrap_or(variable.default).trim());
        let value = value.or_else(|mut mistake| {
            name.clone_into(&mut mistake.field);
            self.mistakes.push(mistake);
            parse(variable.default)
        });
        match value {
            Ok(value) => Some(value),
            Err(mistake) => panic!("the default of {name} is a mistake: {mistake}"),
        }
    }

    /// The text that a variable is set to, be it nothing.
    #[must_use]
    pub fn given(&self, name: &str) -> Option<String> {
        self.source.text(name)
    }

    /// Remembers a mistake that shows only when values are seen together. One
    /// of a variable that was not understood in the first place follows from that.
    pub fn mistake(&mut self, mistake: Invalid) {
        if self
            .mistakes
            .iter()
            .all(|known| known.field != mistake.field)
        {
            self.mistakes.push(mistake);
        }
    }

    /// What `build` makes of the values, if there was no mistake.
    ///
    /// # Errors
    ///
    /// All mistakes, in the order in which they were read.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Mistakes> {
        match value {
            Some(value) if self.mistakes.is_empty() => Ok(value),
            _ => Err(Mistakes(self.mistakes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{duration, number};

    const VARIABLES: &[Variable] = &[
        Variable {
            name: "A",
            default: "7",
            meaning: "a number",
        },
        Variable {
            name: "B",
            default: "15s",
            meaning: "a time",
        },
    ];

    fn read(
        settings: &[(&'static str, &'static str)],
    ) -> Result<(u32, std::time::Duration), Mistakes> {
        let source: BTreeMap<&str, &str> = settings.iter().copied().collect();
        let mut reader = Reader::new(&source, VARIABLES);
        let a = reader.read("A", number(1..=9));
        let b = reader.read("B", duration);
        reader.finish(a.zip(b))
    }

    #[test]
    fn what_is_not_set_has_its_default() {
        assert_eq!(read(&[]).unwrap(), (7, std::time::Duration::from_secs(15)));
    }

    #[test]
    fn what_is_set_to_nothing_does_not_have_its_default() {
        assert_eq!(read(&[("A", "")]).unwrap_err().0[0].field, "A");
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mistakes = read(&[("A", "10"), ("B", "soon")]).unwrap_err();
        let fields: Vec<_> = mistakes.0.iter().map(|m| m.field.as_str()).collect();
        assert_eq!(fields, ["A", "B"]);
        assert!(mistakes.to_string().contains("\"soon\" is not"));
    }
}
