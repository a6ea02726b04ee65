//! Results of a table of cases: every row is run, all are printed, and the test fails if one did.

/// Rows with their outcome.
#[derive(Debug, Default)]
pub struct Table {
    title: String,
    rows: Vec<(String, Result<String, String>)>,
}

impl Table {
    /// An empty table.
    pub fn new(title: &str) -> Self {
        Table { title: title.into(), rows: Vec::new() }
    }

    /// Adds a row: what was tried, and either what came out or what was wrong with it.
    pub fn row(&mut self, case: impl Into<String>, outcome: Result<String, String>) {
        self.rows.push((case.into(), outcome));
    }

    /// Prints the table.
    ///
    /// # Panics
    /// If a row failed, or if there is no row at all: a table that ran nothing showed nothing.
    pub fn finish(self) {
        let width = self.rows.iter().map(|(case, _)| case.chars().count()).max().unwrap_or(0).min(90);
        println!("\n{} ({} cases)", self.title, self.rows.len());
        for (case, outcome) in &self.rows {
            match outcome {
                Ok(seen) => println!("  ok    {case:width$}  {}", short(seen)),
                Err(wrong) => println!("  WRONG {case:width$}  {wrong}"),
            }
        }
        let wrong: Vec<String> = self
            .rows
            .iter()
            .filter_map(|(case, outcome)| outcome.as_ref().err().map(|wrong| format!("{case}: {wrong}")))
            .collect();
        assert!(!self.rows.is_empty(), "{}: no case was run", self.title);
        assert!(
            wrong.is_empty(),
            "{} of {} cases are wrong:\n{}",
            wrong.len(),
            self.rows.len(),
            wrong.join("\n")
        );
    }
}

fn short(text: &str) -> String {
    if text.chars().count() <= 100 {
        text.into()
    } else {
        text.chars().take(97).chain("...".chars()).collect()
    }
}
