//! Statistics of many named values at once.

use super::Statistics;
use crate::error::{Context, Error, Result};

/// Statistics of each observed value. Workers collect shares of the samples and are then [merged](Self::merge).
#[derive(Clone, PartialEq, Debug)]
pub struct Collector {
    names: Vec<String>,
    statistics: Vec<Statistics>,
}

impl Collector {
    /// A collector for the values with these names, which it knows by their position.
    pub fn new(names: Vec<String>) -> Self {
        let statistics = vec![Statistics::new(); names.len()];
        Self { names, statistics }
    }

    /// The observed values' names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Adds elements of the value at `index`.
    ///
    /// # Errors
    /// An index out of range, and elements that are NaN or infinite; the statistics are then unchanged.
    pub fn observe(&mut self, index: usize, elements: &[f32]) -> Result<()> {
        let (Some(statistics), Some(name)) = (self.statistics.get_mut(index), self.names.get(index)) else {
            return Err(Error::internal(format!("no observed value has the index {index}")));
        };
        statistics.update(elements).context(|| format!("value \"{name}\""))
    }

    /// Adds what another collector of the same values has seen.
    ///
    /// # Errors
    /// Different values.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.names != other.names {
            return Err(Error::internal("the collectors observe different values"));
        }
        for (mine, theirs) in self.statistics.iter_mut().zip(&other.statistics) {
            mine.merge(theirs);
        }
        Ok(())
    }

    /// Statistics by name, of the values of which there are any elements.
    pub fn into_statistics(self) -> impl Iterator<Item = (String, Statistics)> {
        self.names.into_iter().zip(self.statistics).filter(|(_, s)| s.count() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector() -> Collector {
        Collector::new(vec!["a".into(), "b".into(), "unseen".into()])
    }

    #[test]
    fn shares_merge_to_the_whole() {
        let (mut whole, mut one, mut two) = (collector(), collector(), collector());
        for (k, part) in [[1.0, -4.0], [0.0, 9.5]].iter().enumerate() {
            whole.observe(k, part).unwrap();
            one.observe(k, &part[..1]).unwrap();
            two.observe(k, &part[1..]).unwrap();
        }
        two.merge(&one).unwrap();
        assert_eq!(two, whole);
        let names: Vec<String> = whole.into_statistics().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn errors_name_the_value() {
        let mut c = collector();
        let message = c.observe(1, &[f32::NAN]).unwrap_err().to_string();
        assert!(message.contains("\"b\"") && message.contains("NaN"), "{message}");
        assert!(c.observe(3, &[]).is_err());
        assert!(c.merge(&Collector::new(vec!["a".into()])).is_err());
    }
}
