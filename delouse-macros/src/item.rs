//! Parses the function of the attribute. Its body is not parsed, so that incomplete code expands while it is being typed,
//! and editors can complete it.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, TokenStreamExt};
use syn::parse::{Parse, ParseStream};
use syn::{AttrStyle, Attribute, Signature, Token, Visibility, braced, token};

/// A function whose body is raw tokens.
pub(crate) struct Item {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
    pub(crate) body: Body,
}

/// A function body as tokens, and the position of its last statement.
pub(crate) struct Body {
    pub(crate) brace: token::Brace,
    tokens: TokenStream,
    /// The spans of the first and the last token of the last statement, where rustc should report a wrong result type.
    pub(crate) last_statement: (Span, Span),
}

impl Parse for Item {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        let signature = input.parse()?;
        let content;
        let brace = braced!(content in input);
        // The body becomes an `async` block, which cannot have inner attributes: move them to the function.
        attributes.extend(
            Attribute::parse_inner(&content)?
                .into_iter()
                .map(|inner| Attribute { style: AttrStyle::Outer, ..inner }),
        );
        let body = Body::parse(brace, &content)?;
        Ok(Item { attributes, visibility, signature, body })
    }
}

impl Body {
    fn parse(brace: token::Brace, content: ParseStream<'_>) -> syn::Result<Self> {
        let mut tokens = TokenStream::new();
        let mut last_statement = None;
        let mut ended = true;
        while !content.is_empty() {
            let ends = content.peek(Token![;]);
            let tree: TokenTree = content.parse()?;
            let span = tree.span();
            last_statement = match last_statement {
                Some((start, _)) if !ended => Some((start, span)),
                _ => Some((span, span)),
            };
            ended = ends;
            tokens.append(tree);
        }
        let last_statement = last_statement.unwrap_or_else(|| (Span::call_site(), Span::call_site()));
        Ok(Body { brace, tokens, last_statement })
    }
}

impl ToTokens for Body {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.brace.surround(tokens, |inside| self.tokens.to_tokens(inside));
    }
}
