//! The options of the engine's structs are the recorded ones, the documented ones, and what `fluvio_options_describe` says.
//!
//! Names, types and defaults are not written down twice: the structs' own deserializers are asked for their fields and for
//! the type of each, and the defaults are those of a document that leaves everything out.

mod common;

use std::ffi::CStr;
use std::fmt;

use common::{assert_committed, crate_path};
use engine::ClientOptions;
use engine::admin::{CreateTopic, ListTopics};
use engine::consumer::ConsumerOptions;
use engine::producer::ProducerOptions;
use fluvio_cffi::{FLUVIO_ABI_VERSION, fluvio_options_describe};
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Ends every visit: what was asked for is known by then.
#[derive(Debug)]
struct Enough;

impl fmt::Display for Enough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("enough")
    }
}
impl std::error::Error for Enough {}
impl serde::de::Error for Enough {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Enough
    }
}

/// Learns the fields of a struct.
struct Fields<'a>(&'a mut Vec<&'static str>);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Enough;
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Enough> {
        panic!("not a struct")
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Enough> {
        self.0.extend(fields);
        Err(Enough)
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A struct with this one field, whose type is learnt.
struct OneField<'a> {
    name: &'static str,
    kind: &'a mut Value,
}

impl<'de> Deserializer<'de> for OneField<'_> {
    type Error = Enough;
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Enough> {
        visitor.visit_map(self)
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for OneField<'_> {
    type Error = Enough;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Enough> {
        let name: StrDeserializer<'_, Enough> = self.name.into_deserializer();
        seed.deserialize(name).map(Some)
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Enough> {
        seed.deserialize(Kind(self.kind))
    }
}

/// Learns a type, as {"type": ...}.
struct Kind<'a>(&'a mut Value);

macro_rules! plain {
    ($($method:ident => $kind:literal)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Enough> {
            *self.0 = json!({"type": $kind});
            Err(Enough)
        }
    )*};
}

impl<'de> Deserializer<'de> for Kind<'_> {
    type Error = Enough;
    plain! {
        deserialize_bool => "boolean"
        deserialize_i32 => "integer" deserialize_i64 => "integer"
        deserialize_u32 => "integer" deserialize_u64 => "integer"
        deserialize_str => "string" deserialize_string => "string"
    }
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Enough> {
        panic!("a type that this test does not know")
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Enough> {
        visitor.visit_some(self)
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Enough> {
        let mut element = Value::Null;
        let end = visitor.visit_seq(OneElement(&mut element));
        *self.0 = json!({"type": "array", "of": element});
        end
    }
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Enough> {
        let mut value = Value::Null;
        let end = visitor.visit_enum(OneVariant { name: variants[0], value: &mut value });
        *self.0 = match value {
            Value::Null => json!({"type": "string", "values": variants}),
            value => json!({"type": "object", "one_of": variants, "value": value}),
        };
        end
    }
    serde::forward_to_deserialize_any! {
        i8 i16 u8 u16 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct map struct identifier
        ignored_any
    }
}

struct OneElement<'a>(&'a mut Value);

impl<'de> SeqAccess<'de> for OneElement<'_> {
    type Error = Enough;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Enough> {
        seed.deserialize(Kind(self.0)).map(Some)
    }
}

/// An enum's first variant, whose value's type is learnt if it has one.
struct OneVariant<'a> {
    name: &'static str,
    value: &'a mut Value,
}

impl<'de> EnumAccess<'de> for OneVariant<'_> {
    type Error = Enough;
    type Variant = Self;
    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Enough> {
        let name: StrDeserializer<'_, Enough> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for OneVariant<'_> {
    type Error = Enough;
    fn unit_variant(self) -> Result<(), Enough> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Enough> {
        seed.deserialize(Kind(self.value))
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Enough> {
        panic!("a variant that this test does not know")
    }
    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Enough> {
        panic!("a variant that this test does not know")
    }
}

/// Names, types and defaults of one struct; `least` is the shortest document that it takes.
fn describe<T: for<'de> Deserialize<'de> + Serialize>(least: Value) -> Value {
    let required: Vec<String> = least.as_object().unwrap().keys().cloned().collect();
    let defaults = serde_json::to_value(serde_json::from_value::<T>(least).unwrap()).unwrap();
    let mut names = Vec::new();
    assert!(T::deserialize(Fields(&mut names)).is_err());
    assert_eq!(names.len(), defaults.as_object().unwrap().len());
    let mut options = Map::new();
    for name in names {
        let mut option = Value::Null;
        let _ = T::deserialize(OneField { name, kind: &mut option });
        let option = option.as_object_mut().unwrap_or_else(|| panic!("{name} has no type"));
        match required.iter().any(|needed| needed == name) {
            true => option.insert("required".to_owned(), true.into()),
            false => option.insert("default".to_owned(), defaults[name].clone()),
        };
        options.insert(name.to_owned(), Value::Object(option.clone()));
    }
    Value::Object(options)
}

/// The kinds of options, and the functions that take them.
fn kinds() -> [(&'static str, &'static str, Value); 5] {
    [
        ("client", "fluvio_connect", describe::<ClientOptions>(json!({}))),
        ("producer", "fluvio_producer_open", describe::<ProducerOptions>(json!({}))),
        ("consumer", "fluvio_consumer_open", describe::<ConsumerOptions>(json!({}))),
        ("topic", "fluvio_admin_create", describe::<CreateTopic>(json!({"name": "name"}))),
        ("topics", "fluvio_admin_list", describe::<ListTopics>(json!({}))),
    ]
}

#[test]
fn the_recorded_options_are_those_of_the_engine() {
    let all: Map<String, Value> =
        kinds().into_iter().map(|(kind, _, options)| (kind.to_owned(), options)).collect();
    let text = serde_json::to_string_pretty(&Value::Object(all)).unwrap() + "\n";
    assert_committed(&crate_path(&format!("abi/{FLUVIO_ABI_VERSION}/options.json")), &text);
    if std::env::var_os("UPDATE").is_none() {
        // SAFETY: a static string.
        let described = unsafe { CStr::from_ptr(fluvio_options_describe()) }.to_str().unwrap();
        assert_eq!(described, text);
    }
}

/// The words in backticks of the paragraph on options in the header: the names of the options, and nothing else.
#[test]
fn the_header_names_the_options_of_each_function() {
    let header = std::fs::read_to_string(crate_path("include/fluvio.h")).unwrap();
    for (kind, function, options) in kinds() {
        let end = header.find(&format!(" {function}(")).unwrap();
        let comment = &header[header[..end].rfind("/**").unwrap()..end];
        let paragraph = comment.split_once("Parameters:").unwrap().1.split_once("Ownership:").unwrap().0;
        let paragraph =
            paragraph.split_once("Keys: ").unwrap_or_else(|| panic!("{function} lists no keys")).1;
        let mut documented: Vec<&str> = paragraph.split('`').skip(1).step_by(2).collect();
        let mut known: Vec<&str> = options.as_object().unwrap().keys().map(String::as_str).collect();
        documented.sort_unstable();
        known.sort_unstable();
        assert_eq!(documented, known, "{kind}: {function}");
    }
}

/// A number has its unit in its name, if it has one.
#[test]
fn durations_and_sizes_have_their_unit_in_the_name() {
    for (kind, _, options) in kinds() {
        for (name, option) in options.as_object().unwrap() {
            let about = |words: &[&str]| words.iter().any(|word| name.split('_').any(|part| part == *word));
            if about(&["timeout", "linger", "retry", "retention"]) {
                assert!(name.ends_with("_ms"), "{kind}: {name}");
            }
            if about(&["size", "buffer", "prefetch"]) {
                assert!(name.ends_with("_bytes"), "{kind}: {name}");
            }
            if name.ends_with("_ms") || name.ends_with("_bytes") {
                assert_eq!(option["type"], "integer", "{kind}: {name}");
            }
        }
    }
}
