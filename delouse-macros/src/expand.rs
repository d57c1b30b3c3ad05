//! Generates the expansion from the function and its configuration.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{GenericArgument, PathArguments, ReturnType, Type};

use crate::args::{Config, Flavor, UnhandledPanic};
use crate::item::Item;

/// Generates a function that is not `async` and runs the body on a runtime.
///
/// The expansion contains the code for `dump` on and for `dump` off, and a macro of `delouse` selects one. A `#[cfg]` in
/// the expansion would test for a feature of the *user's* crate.
pub(crate) fn expand(item: Item, config: &Config) -> TokenStream {
    let Item { attributes, visibility, mut signature, body } = item;
    signature.asyncness = None;

    // The code that runs the body has the span of its last statement, so that rustc reports a wrong result type there.
    let (start, end) = body.last_statement;
    let run = run(config, start, end);
    let output = match &signature.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, ty) => ty.to_token_stream(),
    };
    // Unreachable code that makes rustc compare the body's type with the declared type at the user's code. Not for `!`,
    // which is not a stable type here, nor for `impl Trait`, which cannot be named.
    let check = match &signature.output {
        ReturnType::Type(_, ty) if matches!(**ty, Type::Never(_)) || has_impl_trait(ty) => None,
        _ => Some(quote! {
            if false {
                let _: &dyn ::core::future::Future<Output = #output> = &body;
            }
        }),
    };

    let mut tokens = quote!(#(#attributes)* #visibility #signature);
    // Has the span of the user's braces, from which rustc derives the position of the function.
    body.brace.surround(&mut tokens, |inside| {
        inside.extend(quote! {
            let body = async #body;
            let body = {
                #check
                body
            };
            #run
        });
    });
    tokens
}

/// The last expression of the function: builds the runtime and runs the body.
fn run(config: &Config, start: Span, end: Span) -> TokenStream {
    // Resolved at the attribute, reported at the user's statement.
    let here = Span::call_site().located_at(start);
    let tokio = match &config.tokio {
        Some(path) => path.to_token_stream(),
        None => quote_spanned!(here=> tokio),
    };
    let delouse = match &config.delouse {
        Some(path) => path.to_token_stream(),
        None => quote_spanned!(here=> ::delouse),
    };
    let import = quote_spanned!(here=> use #tokio::runtime::Builder;);
    let builder = builder(config, &tokio, start);
    let address = config.bind.as_ref().map(|address| quote_spanned!(start=> .bind(#address)));
    let (build, block_on) = match config.flavor {
        Flavor::Local => {
            (quote_spanned!(start=> build_local(Default::default())), quote_spanned!(start=> block_on_local))
        }
        Flavor::MultiThread | Flavor::CurrentThread => {
            (quote_spanned!(start=> build()), quote_spanned!(start=> block_on))
        }
    };
    // Resolved where the `let` of this name is.
    let body = quote!(body);
    let import_block_on = quote_spanned!(here=> use #delouse::__private::#block_on;);
    let choose = quote_spanned!(here=> #delouse::__if_dump!);

    // `return` makes the block's type `!`, so that a wrong result type is only one error, at the call. The first and the
    // last token have the span of the user's statement. If the expression started with a path of delouse, rustc would
    // report the error in the attribute.
    let debug = quote_spanned! {end=>
        return #block_on(#builder, #delouse::Config::new() #address, #body);
    };
    let plain = quote_spanned! {end=>
        return #builder.#build.expect("Failed building the Runtime").block_on(#body);
    };
    quote_spanned! {end=>
        #[allow(
            clippy::diverging_sub_expression,
            clippy::expect_used,
            clippy::needless_return,
            clippy::unwrap_in_result
        )]
        {
            #choose {
                { #import #import_block_on #debug } else { #import #plain }
            }
        }
    }
}

/// The runtime's builder with every option, as an expression of type `&mut Builder`.
fn builder(config: &Config, tokio: &TokenStream, span: Span) -> TokenStream {
    let mut builder = match config.flavor {
        Flavor::MultiThread => quote_spanned!(span=> Builder::new_multi_thread()),
        Flavor::CurrentThread | Flavor::Local => quote_spanned!(span=> Builder::new_current_thread()),
    };
    if let Some(count) = config.worker_threads {
        builder = quote_spanned!(span=> #builder.worker_threads(#count));
    }
    if let Some(paused) = config.start_paused {
        builder = quote_spanned!(span=> #builder.start_paused(#paused));
    }
    if let Some(behavior) = config.unhandled_panic {
        let behavior = match behavior {
            UnhandledPanic::Ignore => quote!(Ignore),
            UnhandledPanic::ShutdownRuntime => quote!(ShutdownRuntime),
        };
        builder = quote_spanned!(span=> #builder.unhandled_panic(#tokio::runtime::UnhandledPanic::#behavior));
    }
    if let Some(name) = &config.name {
        builder = quote_spanned!(span=> #builder.name(#name));
    }
    quote_spanned!(span=> #builder.enable_all())
}

/// Whether a type contains `impl Trait`.
fn has_impl_trait(ty: &Type) -> bool {
    match ty {
        Type::ImplTrait(_) => true,
        Type::Array(array) => has_impl_trait(&array.elem),
        Type::Group(group) => has_impl_trait(&group.elem),
        Type::Paren(paren) => has_impl_trait(&paren.elem),
        Type::Ptr(pointer) => has_impl_trait(&pointer.elem),
        Type::Reference(reference) => has_impl_trait(&reference.elem),
        Type::Slice(slice) => has_impl_trait(&slice.elem),
        Type::Tuple(tuple) => tuple.elems.iter().any(has_impl_trait),
        Type::Path(path) => path.path.segments.iter().any(|segment| match &segment.arguments {
            PathArguments::None => false,
            PathArguments::AngleBracketed(generics) => generics.args.iter().any(|argument| match argument {
                GenericArgument::Type(ty) => has_impl_trait(ty),
                GenericArgument::AssocType(assoc) => has_impl_trait(&assoc.ty),
                _ => false,
            }),
            PathArguments::Parenthesized(function) => {
                function.inputs.iter().any(|input| has_impl_trait(&input.ty))
                    || matches!(&function.output, ReturnType::Type(_, ty) if has_impl_trait(ty))
            }
        }),
        _ => false,
    }
}
