//! Wire types that take any JSON: a field of another shape than expected is as good as absent, of a key that stands
//! twice the last counts (as in every JavaScript reader), unknown keys are skipped. Only syntax can fail.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A string, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text<'a>(pub(super) Option<Cow<'a, str>>);

impl<'a> Text<'a> {
    /// The string, unless it is empty.
    pub(super) fn get(&self) -> Option<&str> {
        self.0.as_deref().filter(|text| !text.is_empty())
    }

    pub(super) fn owned(&self) -> Option<String> {
        self.get().map(str::to_owned)
    }
}

/// A count: a number that is not negative, or digits in a string.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Number(pub(super) Option<f64>, Option<u64>);

impl Number {
    /// A whole number below 2^53.
    #[allow(clippy::cast_precision_loss, reason = "there is none below 2^53")]
    pub(super) const fn whole(n: u64) -> Self {
        Self(Some(n as f64), Some(n))
    }

    /// Rounded down; none where it is negative or no number.
    pub(super) fn count(self) -> Option<u64> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
        self.1.or_else(|| self.0.filter(|n| (0.0..9.0e15).contains(n)).map(|n| n as u64))
    }
}

/// True, or anything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

/// Implements the visits that most shapes do not expect; each gives the default.
macro_rules! nothing {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Self::Value, E> { Ok(Self::Value::default()) })*
        fn visit_unit<E>(self) -> Result<Self::Value, E> { Ok(Self::Value::default()) }
    };
    (seq) => {
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
    (map) => {
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
}
pub(super) use nothing;

fn anything(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("any JSON")
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Some(Cow::Borrowed(text))))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Some(Cow::Owned(text.to_owned()))))
            }
            nothing! {visit_bool: bool, visit_u64: u64, visit_i64: i64, visit_f64: f64}
            nothing! {seq}
            nothing! {map}
        }
        deserializer.deserialize_any(Visit)
    }
}

impl<'de> Deserialize<'de> for Number {
    #[allow(clippy::cast_precision_loss, reason = "beside the whole number, which is kept")]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_u64<E>(self, n: u64) -> Result<Number, E> {
                Ok(Number(Some(n as f64), Some(n)))
            }
            fn visit_i64<E>(self, n: i64) -> Result<Number, E> {
                Ok(Number(Some(n as f64), u64::try_from(n).ok()))
            }
            fn visit_f64<E>(self, n: f64) -> Result<Number, E> {
                Ok(Number(Some(n), None))
            }
            fn visit_str<E>(self, text: &str) -> Result<Number, E> {
                Ok(Number(text.parse().ok().filter(|n: &f64| n.is_finite()), text.parse().ok()))
            }
            nothing! {visit_bool: bool}
            nothing! {seq}
            nothing! {map}
        }
        deserializer.deserialize_any(Visit)
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Flag;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_bool<E>(self, is: bool) -> Result<Flag, E> {
                Ok(Flag(is))
            }
            nothing! {visit_u64: u64, visit_i64: i64, visit_f64: f64, visit_str: &str}
            nothing! {seq}
            nothing! {map}
        }
        deserializer.deserialize_any(Visit)
    }
}

/// A struct of lenient fields, each with its key.
macro_rules! lenient {
    ($(#[$meta:meta])* struct $name:ident $(<$life:lifetime>)? {
        $($(#[$field_meta:meta])* $field:ident: $type:ty = $key:literal $(| $alias:literal)*),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default)]
        pub(super) struct $name $(<$life>)? { $($(#[$field_meta])* pub(super) $field: $type),* }

        impl<'de $(: $life, $life)?> serde::Deserialize<'de> for $name $(<$life>)? {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[allow(non_camel_case_types, reason = "named as the fields")]
                enum Key { $($field,)* Other }
                impl<'de> serde::Deserialize<'de> for Key {
                    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                        struct Visit;
                        impl serde::de::Visitor<'_> for Visit {
                            type Value = Key;
                            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                                f.write_str("a key")
                            }
                            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                                Ok(match key { $($key $(| $alias)* => Key::$field,)* _ => Key::Other })
                            }
                        }
                        deserializer.deserialize_identifier(Visit)
                    }
                }
                struct Visit $(<$life>(std::marker::PhantomData<&$life ()>))?;
                impl<'de $(: $life, $life)?> serde::de::Visitor<'de> for Visit $(<$life>)? {
                    type Value = $name $(<$life>)?;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("any JSON")
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                        let mut made = Self::Value::default();
                        while let Some(key) = map.next_key::<Key>()? {
                            match key {
                                $(Key::$field => made.$field = map.next_value()?,)*
                                Key::Other => { map.next_value::<serde::de::IgnoredAny>()?; }
                            }
                        }
                        Ok(made)
                    }
                    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                        while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                        Ok(Self::Value::default())
                    }
                    $crate::transcript::lenient::nothing! {
                        visit_bool: bool, visit_u64: u64, visit_i64: i64, visit_f64: f64, visit_str: &str
                    }
                }
                deserializer.deserialize_any(lenient!(@visit $($life)?))
            }
        }
    };
    (@visit $life:lifetime) => { Visit(std::marker::PhantomData) };
    (@visit) => { Visit };
}
pub(super) use lenient;

/// An object whose keys and values are both wanted, or nothing.
#[derive(Clone, Debug)]
pub(super) struct Entries<T>(pub(super) Vec<(String, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Visit<T> {
            type Value = Entries<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
            nothing! {visit_bool: bool, visit_u64: u64, visit_i64: i64, visit_f64: f64, visit_str: &str}
            nothing! {seq}
        }
        deserializer.deserialize_any(Visit(std::marker::PhantomData))
    }
}

/// A list, or nothing.
#[derive(Clone, Debug)]
pub(super) struct List<T>(pub(super) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Visit<T> {
            type Value = List<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = seq.next_element()? {
                    list.push(element);
                }
                Ok(List(list))
            }
            nothing! {visit_bool: bool, visit_u64: u64, visit_i64: i64, visit_f64: f64, visit_str: &str}
            nothing! {map}
        }
        deserializer.deserialize_any(Visit(std::marker::PhantomData))
    }
}

/// Something large that few records have: a record without it stays small.
#[derive(Clone, Debug)]
pub(super) struct Rare<T>(pub(super) Option<Box<T>>);

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Rare<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(|value| Self(Some(Box::new(value))))
    }
}
