//! What is wrong in a configuration file, where, and what to do: all problems that were found, not only the first.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A configuration that cannot be used.
#[derive(Debug)]
pub struct ConfigError {
    path: PathBuf,
    text: String,
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn new(path: &Path, text: &str, problems: Vec<Problem>) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), problems }
    }

    /// Everything that was found, in the order of the checks.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl std::error::Error for ConfigError {}

/// Each problem as `file:line:column: message`, the line with carets under the place, and what to do. Of very many
/// problems the first ones, of a very long line the part around the place: a file that is none of ours shows neither
/// gigabytes nor control characters.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().take(PROBLEMS_SHOWN_MAX).enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match &problem.place {
                Some(place) => self.write_place(f, problem, place)?,
                None => writeln!(f, "{}: {}", self.path.display(), printable(&problem.message))?,
            }
            if let Some(help) = &problem.help {
                writeln!(f, "  = {help}")?;
            }
        }
        match self.problems.len().saturating_sub(PROBLEMS_SHOWN_MAX) {
            0 => Ok(()),
            more => writeln!(f, "\nand {more} more"),
        }
    }
}

impl ConfigError {
    fn write_place(&self, f: &mut fmt::Formatter<'_>, problem: &Problem, place: &Range<usize>) -> fmt::Result {
        let before = self.text.get(..place.start).unwrap_or(&self.text);
        let line_number = before.matches('\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let column = before.get(line_start..).map_or(0, |text| text.chars().count());
        let marked = self.text.get(place.clone()).and_then(|text| text.lines().next()).unwrap_or_default();
        let skipped = if column < COLUMN_SHOWN_MAX { 0 } else { column - COLUMN_SHOWN_MAX / 2 };
        let shown = line.chars().skip(skipped).take(LINE_CHARS_MAX);
        let shown: String = shown.map(|c| if c.is_control() { ' ' } else { c }).collect();
        let indent = column - skipped;
        let carets = marked.chars().count().clamp(1, shown.chars().count().saturating_sub(indent).max(1));
        let gutter = " ".repeat(line_number.to_string().len());
        writeln!(f, "{}:{line_number}:{}: {}", self.path.display(), column + 1, printable(&problem.message))?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{line_number} | {shown}")?;
        writeln!(f, "{gutter} | {}{}", " ".repeat(indent), "^".repeat(carets))
    }
}

/// Messages repeat what was typed, in which escapes of TOML can put anything: terminals are not to be steered by it.
fn printable(message: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c };
    message.chars().map(shown).collect()
}

/// Nobody reads more.
const PROBLEMS_SHOWN_MAX: usize = 100;

/// Characters of a line that are shown, so that it stays on a screen.
const LINE_CHARS_MAX: usize = 200;

/// Places further to the right are shown in the middle of what comes before them.
const COLUMN_SHOWN_MAX: usize = 120;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    message: String,
    place: Option<Range<usize>>,
    help: Option<String>,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, help: None }
    }

    /// At these bytes of the file.
    pub(super) fn at(self, place: Range<usize>) -> Self {
        Self { place: Some(place), ..self }
    }

    /// With what to do about it.
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// What is wrong: what was expected, and what came.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The bytes of the file that it is about, if it is about some.
    #[must_use]
    pub fn place(&self) -> Option<Range<usize>> {
        self.place.clone()
    }

    /// What to do, if there is one thing to do.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

/// Collects problems while checks go on.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// The value, or nothing and a problem at `place`.
    pub(super) fn check<T, E: ToString>(&mut self, place: Range<usize>, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.push(Problem::new(error.to_string()).at(place))).ok()
    }

    /// Takes the value of a text, if there is one and it is right.
    pub(super) fn check_text<T, E: ToString>(
        &mut self,
        text: &Option<toml::Spanned<String>>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = text.as_ref()?;
        self.check(text.span(), parse(text.get_ref()))
    }

    pub(super) fn into_vec(self) -> Vec<Problem> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_its_place() {
        let text = "[node]\nsurvive = \"soon\"\n";
        let problem = Problem::new("no duration").at(17..23).help("write \"5s\"");
        let shown = ConfigError::new(Path::new("node.toml"), text, vec![problem]).to_string();
        let expected =
            "node.toml:2:11: no duration\n  |\n2 | survive = \"soon\"\n  |           ^^^^^^\n  = write \"5s\"\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn very_many_problems_in_a_very_long_line_are_shown_shortly() {
        let text = "é,".repeat(300_000);
        let problem = |index: usize| Problem::new("wrong").at(index * 3..index * 3 + 2);
        let shown = ConfigError::new(Path::new("x"), &text, (0..300_000).map(problem).collect()).to_string();
        assert!(shown.len() < 100 * 1000, "{} bytes", shown.len());
        assert!(shown.ends_with("\nand 299900 more\n"));
        let shown = ConfigError::new(Path::new("x"), &text, vec![problem(200_000)]).to_string();
        assert!(shown.starts_with("x:1:400001: wrong\n"));
        let mut lines = shown.lines().skip(2);
        let (line, marks) = (lines.next().unwrap(), lines.next().unwrap());
        let mark = marks.chars().position(|c| c == '^').unwrap();
        assert_eq!((line.chars().nth(mark), marks.matches('^').count()), (Some('é'), 1));
    }

    #[test]
    fn control_characters_are_not_shown() {
        let text = "a = \"\u{7}\"";
        let error = ConfigError::new(Path::new("x"), text, vec![Problem::new("\u{1b}[2Jno").at(4..7)]).to_string();
        assert!(error.contains("no\n") && !error.contains(|c: char| c.is_control() && c != '\n'), "{error:?}");
    }

    #[test]
    fn places_outside_the_text_do_no_harm() {
        let problem = Problem::new("lost").at(700..800);
        assert!(ConfigError::new(Path::new("x"), "ä\n", vec![problem]).to_string().contains("lost"));
    }
}
