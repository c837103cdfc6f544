//! A JSON object, read strictly: each field once, and none that is not known. Pure.

use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::problem::Problem;
use crate::error::InvalidValue;

/// The fields of an object, each as it was written.
#[derive(Debug)]
pub(super) struct Object<'a> {
    fields: Vec<(String, &'a RawValue)>,
}

/// More fields than any request has; the rest is not kept, only refused.
const MAX_FIELDS: usize = 32;

impl<'a> Object<'a> {
    pub(super) fn parse(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// Refuses fields that come twice or are not among `known`; `what` says of what they are none.
    pub(super) fn check(&self, known: &[&str], what: &str) -> Result<(), Problem> {
        for (at, (name, _)) in self.fields.iter().enumerate() {
            let earlier = self.fields.get(..at).unwrap_or_default();
            let rule = if earlier.iter().any(|(other, _)| other == name) {
                "must not be given twice".to_owned()
            } else if !known.contains(&name.as_str()) {
                format!("is no field of {what}")
            } else {
                continue;
            };
            // Another's word, so not all of it.
            let field: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            return Err(Problem::bad_value(format!("{field} {rule}")).field(field));
        }
        Ok(())
    }

    /// The field's value, but for a `null`, which stands for none.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.raw(name).filter(|value| value.get() != "null")
    }

    /// The field's value.
    pub(super) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.fields.iter().find(|(known, _)| known == name).map(|&(_, value)| value)
    }

    /// The field's value as a `T`, which `rule` describes.
    pub(super) fn read<T: Deserialize<'a>>(
        &self,
        name: &'static str,
        rule: &'static str,
    ) -> Result<Option<T>, InvalidValue> {
        let value = self.get(name).map(|value| serde_json::from_str(value.get()));
        value.transpose().map_err(|_| InvalidValue::new(name, rule))
    }

    /// A list of words that must not be empty.
    pub(super) fn list(&self, name: &'static str) -> Result<Vec<String>, InvalidValue> {
        let words: Vec<String> = self.read(name, "must be an array of strings")?.unwrap_or_default();
        if words.is_empty() {
            return Err(InvalidValue::new(name, "must not be empty"));
        }
        Ok(words)
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if fields.len() < MAX_FIELDS {
                        fields.push((name, value));
                    }
                }
                Ok(Object { fields })
            }
        }

        deserializer.deserialize_map(Reader)
    }
}
