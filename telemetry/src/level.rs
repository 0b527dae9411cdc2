use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;

/// How much is logged. The names are those of `NSM_LOG_LEVEL`; upper and lower
/// case are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Someone must act. NSM's `FATAL` and `PANIC` read as this as well.
    Error,
    /// We go on, worse.
    Warn,
    /// A connection's life in few lines.
    #[default]
    Info,
    /// Each element.
    Debug,
    /// Everything.
    Trace,
}

/// A text that names no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown log level {text:?}, not one of TRACE, DEBUG, INFO, WARN, ERROR")]
pub struct UnknownLevel {
    /// What was given.
    pub text: String,
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        match text.trim().to_ascii_uppercase().as_str() {
            "ERROR" | "FATAL" | "PANIC" => Ok(Self::Error),
            "WARN" | "WARNING" => Ok(Self::Warn),
            "INFO" => Ok(Self::Info),
            "DEBUG" => Ok(Self::Debug),
            "TRACE" => Ok(Self::Trace),
            _ => Err(UnknownLevel {
                text: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        })
    }
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_level_is_shown_as_reads_as_the_same_level() {
        for level in [
            Level::Error,
            Level::Warn,
            Level::Info,
            Level::Debug,
            Level::Trace,
        ] {
            assert_eq!(level.to_string().parse(), Ok(level));
            assert_eq!(level.to_string().to_lowercase().parse(), Ok(level));
        }
    }

    #[test]
    fn the_names_of_nsm_all_read() {
        assert_eq!("WARNING".parse(), Ok(Level::Warn));
        assert_eq!("FATAL".parse(), Ok(Level::Error));
        assert_eq!("PANIC".parse(), Ok(Level::Error));
    }

    #[test]
    fn an_unknown_level_is_shown_with_the_known_ones() {
        let error = "LOUD".parse::<Level>().unwrap_err().to_string();
        assert!(error.contains("LOUD") && error.contains("TRACE"), "{error}");
    }
}
