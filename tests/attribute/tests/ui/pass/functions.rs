//! Functions other than `main`: arguments, generics, methods, qualifiers, attributes, visibilities.
#![deny(warnings)]

use std::fmt::Display;
use std::num::ParseIntError;

#[delouse::main(flavor = "current_thread")]
pub async fn arguments(mut left: u32, (right, _): (u32, &str)) -> u32 {
    left += 1;
    tokio::task::yield_now().await;
    left + right
}

#[delouse::main(flavor = "current_thread")]
async fn generics<'a, T, const N: usize>(items: &'a [T; N]) -> (usize, &'a T)
where
    T: Display + ?Sized + Sized + 'a,
{
    tokio::task::yield_now().await;
    (N, &items[0])
}

#[delouse::main(flavor = "current_thread")]
async fn question_mark(text: &str) -> Result<u16, ParseIntError> {
    let port = text.parse::<u16>()?;
    Ok(port)
}

#[delouse::main(flavor = "current_thread")]
async fn opaque() -> impl Iterator<Item = u8> {
    [7, 1, 3, 2].into_iter()
}

#[delouse::main(flavor = "current_thread")]
async fn opaque_inside() -> Result<Option<impl Display>, ()> {
    Ok(Some(7132))
}

#[delouse::main(flavor = "current_thread")]
async fn never() -> ! {
    std::process::exit(0)
}

#[delouse::main(flavor = "current_thread")]
async fn explicit_unit() -> () {
    return;
}

#[delouse::main(flavor = "current_thread")]
async fn not_send() -> usize {
    let shared = std::rc::Rc::new(7132);
    tokio::task::yield_now().await;
    *shared
}

/// Documented.
#[must_use]
#[delouse::main(flavor = "current_thread")]
#[inline(never)]
async fn attributes() -> u32 {
    #![allow(unused_variables)]
    let unused = 1;
    7132
}

#[delouse::main(flavor = "current_thread")]
async unsafe extern "C" fn qualifiers(number: u32) -> u32 {
    number
}

#[delouse::main(flavor = "current_thread")]
async fn empty() {}

/// Names that the expansion uses as well.
#[delouse::main(flavor = "current_thread")]
#[allow(non_snake_case)]
async fn same_names(body: u32, Builder: u32, block_on: u32) -> u32 {
    body + Builder + block_on
}

struct Service(u32);

impl Service {
    #[delouse::main(flavor = "current_thread")]
    pub(crate) async fn method(&mut self) -> u32 {
        self.0 += 1;
        self.0
    }

    #[delouse::main(flavor = "current_thread")]
    async fn consumed(self) -> Self {
        self
    }
}

// From a macro of the user's own.
macro_rules! entry {
    ($name:ident, $result:ty, $value:expr) => {
        #[delouse::main(flavor = "current_thread")]
        async fn $name() -> $result {
            $value
        }
    };
}

entry!(from_a_macro, u32, 7132);

fn main() {
    assert_eq!(arguments(1, (2, "")), 4);
    assert_eq!(generics(&[7, 1]), (2, &7));
    assert_eq!(question_mark("7132"), Ok(7132));
    assert!(question_mark("port").is_err());
    assert_eq!(opaque().count(), 4);
    assert_eq!(opaque_inside().unwrap().unwrap().to_string(), "7132");
    explicit_unit();
    assert_eq!(not_send(), 7132);
    assert_eq!(attributes(), 7132);
    // SAFETY: it asks for nothing.
    assert_eq!(unsafe { qualifiers(7132) }, 7132);
    empty();
    assert_eq!(same_names(1, 1, 1), 3);
    assert_eq!(Service(1).consumed().method(), 2);
    assert_eq!(from_a_macro(), 7132);
    never();
}
