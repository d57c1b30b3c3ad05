//! Names in JSON, and JSON that ends with a long list.

use serde::Serialize;
use serde::ser::Error as _;
use serde_json::Error;

/// The name that JSON has for a value of an enum; `unknown` for `None`.
pub(crate) fn name(value: &impl Serialize) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    json.as_str().unwrap_or("unknown").to_owned()
}

/// The end of an answer whose last field is a list.
pub(crate) const LIST_END: &str = "]}";

/// A long list, whose items are written one by one.
pub(crate) trait Items: Send + Sync {
    /// Appends the item at `index` to `out`; `None` if there is none.
    fn write(&self, index: usize, out: &mut Vec<u8>) -> Option<Result<(), Error>>;
}

impl<I: Serialize + Send + Sync> Items for Vec<I> {
    fn write(&self, index: usize, out: &mut Vec<u8>) -> Option<Result<(), Error>> {
        self.get(index).map(|item| serde_json::to_writer(out, item))
    }
}

/// An answer that ends with a long list.
pub(crate) struct LongList {
    /// All before the first item.
    pub(crate) head: Vec<u8>,
    pub(crate) items: Box<dyn Items>,
}

/// `answer`, whose last field `field` is an empty list, with `items` in that list.
///
/// # Errors
/// If the answer cannot be serialised, or does not end with the empty list.
pub(crate) fn list<I: Serialize + Send + Sync + 'static>(
    answer: &impl Serialize,
    field: &str,
    items: Vec<I>,
) -> Result<LongList, Error> {
    let mut head = serde_json::to_vec(answer)?;
    if !head.ends_with(format!("\"{field}\":[{LIST_END}").as_bytes()) {
        return Err(Error::custom("the list must be the answer's last field"));
    }
    head.truncate(head.len() - LIST_END.len());
    Ok(LongList { head, items: Box::new(items) })
}
