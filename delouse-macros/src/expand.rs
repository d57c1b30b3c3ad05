//! Generates the expansion from the function and its configuration.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::{GenericArgument, Ident, PathArguments, ReturnType, Type};

use crate::args::{Config, Flavor, Kind, Leaks, Timeout, UnhandledPanic};
use crate::item::Item;

/// Generates a function that is not `async` and runs the body on a runtime.
///
/// The expansion contains the code for `dump` on and for `dump` off, and a macro of `delouse` selects one. A `#[cfg]` in
/// the expansion would test for a feature of the *user's* crate.
pub(crate) fn expand(item: Item, kind: Kind, config: &Config) -> TokenStream {
    let Item { attributes, visibility, mut signature, body } = item;
    signature.asyncness = None;

    // The code that runs the body has the span of its last statement, so that rustc reports a wrong result type there.
    let (start, end) = body.last_statement;
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
    let check = quote! {
        let body = {
            #check
            body
        };
    };
    let names = Names::new(config, start);
    let (attribute, inside) = match kind {
        Kind::Main => {
            let run = choose(
                &names,
                end,
                &run_main(config, &names, (start, end)),
                &run_plain(config, &names, (start, end)),
            );
            (None, quote!(#check #run))
        }
        Kind::Test => {
            let run = run_test(config, &names, &signature.ident, (start, end));
            let run = quote!(#check #run);
            // What `#[tokio::test]` does, word for word.
            let tokio = &names.tokio;
            let plain = run_plain(config, &names, (start, end));
            let plain = quote! {
                #tokio::pin!(body);
                let body: ::core::pin::Pin<&mut dyn ::core::future::Future<Output = #output>> = body;
                #plain
            };
            let is_plain = config.timeout.is_none() && config.leaks.is_none();
            let run = if is_plain { choose(&names, end, &run, &plain) } else { quote!(#run) };
            (Some(quote!(#[::core::prelude::v1::test])), run)
        }
    };

    let mut tokens = quote!(#(#attributes)* #attribute #visibility #signature);
    // Has the span of the user's braces, from which rustc derives the position of the function.
    body.brace.surround(&mut tokens, |tokens| {
        tokens.extend(quote! {
            let body = async #body;
            #inside
        });
    });
    tokens
}

/// Paths of the two crates, resolved at the attribute, reported at the user's statement.
struct Names {
    here: Span,
    tokio: TokenStream,
    delouse: TokenStream,
}

impl Names {
    fn new(config: &Config, start: Span) -> Self {
        let here = Span::call_site().located_at(start);
        let path =
            |given: &Option<syn::Path>, default| given.as_ref().map_or(default, ToTokens::to_token_stream);
        let tokio = path(&config.tokio, quote_spanned!(here=> tokio));
        let delouse = path(&config.delouse, quote_spanned!(here=> ::delouse));
        Self { here, tokio, delouse }
    }

    fn import(&self) -> TokenStream {
        let tokio = &self.tokio;
        quote_spanned!(self.here=> use #tokio::runtime::Builder;)
    }

    /// Imports a function of delouse. If an expression started with a path of delouse, rustc would report a wrong type in
    /// the attribute.
    fn import_function(&self, name: &TokenStream) -> TokenStream {
        let delouse = &self.delouse;
        quote_spanned!(self.here=> use #delouse::__private::#name;)
    }
}

/// The last expression of the function, for each of the two builds of delouse.
fn choose(names: &Names, end: Span, dump: &TokenStream, plain: &TokenStream) -> TokenStream {
    let delouse = &names.delouse;
    let choose = quote_spanned!(names.here=> #delouse::__if_dump!);
    quote_spanned! {end=>
        #[allow(
            clippy::diverging_sub_expression,
            clippy::expect_used,
            clippy::needless_return,
            clippy::unwrap_in_result
        )]
        {
            #choose {
                { #dump } else { #plain }
            }
        }
    }
}

/// Builds the runtime and runs the body, with delouse.
///
/// `return` makes the block's type `!`, so that a wrong result type is only one error, at the call. The first and the last
/// token have the span of the user's statement.
fn run_main(config: &Config, names: &Names, (start, end): (Span, Span)) -> TokenStream {
    let delouse = &names.delouse;
    let function = match config.flavor {
        Flavor::Local => quote_spanned!(start=> block_on_local),
        Flavor::MultiThread | Flavor::CurrentThread => quote_spanned!(start=> block_on),
    };
    let (import, import_function) = (names.import(), names.import_function(&function));
    let builder = builder(config, &names.tokio, start);
    let address = config.bind.as_ref().map(|address| quote_spanned!(start=> .bind(#address)));
    // Resolved where the `let` of this name is.
    let body = quote!(body);
    quote_spanned! {end=>
        #import
        #import_function
        return #function(#builder, #delouse::Config::new() #address, #body);
    }
}

/// The same without delouse: what `#[tokio::main]` does, word for word.
fn run_plain(config: &Config, names: &Names, (start, end): (Span, Span)) -> TokenStream {
    let build = match config.flavor {
        Flavor::Local => quote_spanned!(start=> build_local(Default::default())),
        Flavor::MultiThread | Flavor::CurrentThread => quote_spanned!(start=> build()),
    };
    let (import, builder) = (names.import(), builder(config, &names.tokio, start));
    let body = quote!(body);
    quote_spanned! {end=>
        #import
        return #builder.#build.expect("Failed building the Runtime").block_on(#body);
    }
}

/// The same for a test, with its timeout.
fn run_test(config: &Config, names: &Names, name: &Ident, (start, end): (Span, Span)) -> TokenStream {
    let delouse = &names.delouse;
    let function = match config.flavor {
        Flavor::Local => quote_spanned!(start=> run_test_local),
        Flavor::MultiThread | Flavor::CurrentThread => quote_spanned!(start=> run_test),
    };
    let (import, import_function) = (names.import(), names.import_function(&function));
    let builder = builder(config, &names.tokio, start);
    let timeout = config.timeout.map(|timeout| match timeout {
        Timeout::Off => quote_spanned!(start=> .timeout(::core::option::Option::None)),
        Timeout::After(time) => {
            let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            quote_spanned! {start=>
                .timeout(::core::option::Option::Some(::core::time::Duration::from_millis(#milliseconds)))
            }
        }
    });
    let leaks = config.leaks.map(|leaks| {
        let leaks = match leaks {
            Leaks::Off => quote!(Off),
            Leaks::Warn => quote!(Warn),
            Leaks::Fail => quote!(Fail),
        };
        quote_spanned!(start=> .leaks(#delouse::__private::Leaks::#leaks))
    });
    let body = quote!(body);
    let name = name.unraw().to_string();
    quote_spanned! {end=>
        #[allow(clippy::diverging_sub_expression, clippy::needless_return)]
        {
            #import
            #import_function
            return #function(
                #builder,
                #delouse::__private::Test::new(::core::module_path!(), #name) #timeout #leaks,
                #body,
            );
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
