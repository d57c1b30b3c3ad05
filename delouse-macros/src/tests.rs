//! Properties of all expansions. `tests/attribute/tests/ui.rs` compiles expansions.

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;

use crate::args::Kind;

fn attribute(args: TokenStream, item: TokenStream) -> TokenStream {
    crate::attribute(args, item, Kind::Main)
}

/// How often `wanted` occurs as an identifier, at any depth.
fn count(tokens: TokenStream, wanted: &str) -> usize {
    tokens
        .into_iter()
        .map(|tree| match tree {
            TokenTree::Group(group) => count(group.stream(), wanted),
            TokenTree::Ident(ident) => usize::from(ident == wanted),
            TokenTree::Punct(_) | TokenTree::Literal(_) => 0,
        })
        .sum()
}

#[test]
fn the_body_is_there_once() {
    let main = quote!(
        async fn main() {
            marker();
        }
    );
    for arguments in [quote!(), quote!(flavor = "local"), quote!(worker_threads = 0), quote!(nonsense ! #)] {
        assert_eq!(count(attribute(arguments, main.clone()), "marker"), 1);
    }
}

#[test]
fn default_names_are_not_taken_when_others_are_given() {
    let main = quote!(
        async fn main() {}
    );
    for more in [quote!(), quote!(, bind = "127.0.0.1:7132", name = "x"), quote!(, worker_threads = 0)] {
        let expansion = attribute(quote!(crate = "a::b", delouse = "c::d" #more), main.clone());
        assert_eq!(count(expansion.clone(), "tokio"), 0);
        assert_eq!(count(expansion.clone(), "delouse"), 0);
        assert_eq!(count(expansion, "__if_dump"), 1);
    }
}

#[test]
fn an_item_that_is_no_function_is_left_as_it_is() {
    let item = quote!(
        struct Orders;
    );
    let expansion = attribute(quote!(), item.clone()).to_string();
    assert!(expansion.starts_with(&item.to_string()));
    assert!(expansion.contains("compile_error"));
}
