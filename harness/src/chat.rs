//! Chat templates: the program (Jinja) in a model's file that writes a conversation as the text the model was trained on.
//!
//! It is run as the `transformers` library runs it, for what a conversation of plain messages needs, and the same messages
//! always give the same text: there is no clock. What is not known here is an error, never an empty place in the prompt.

use assay_engine::gguf::Gguf;
use assay_engine::tokenizer::Tokenizer;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};
use std::io;

/// Template from a file: bytes at most.
const TEMPLATE_BYTES: usize = 1 << 20;
/// Instructions of a rendering at most; an instruction that allocates pays for every 64 bytes, so this is 64 MB too.
const FUEL: u64 = 1_000_000;
/// Text of a conversation: bytes at most.
const TEXT_BYTES: usize = 16 << 20;

/// Errors of chat templates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The template cannot be read or run.
    #[error(
        "chat template (tokenizer.chat_template): {problem}; write the prompt yourself and give it with --prompt"
    )]
    Template {
        /// What is wrong with it, and in which line.
        problem: String,
    },
    /// The template takes no such conversation.
    #[error("the model's chat template refuses the messages: {reason}")]
    Refused {
        /// What the template says.
        reason: String,
    },
    /// The file or its vocabulary.
    #[error(transparent)]
    Engine(#[from] assay_engine::Error),
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`, as far as the template knows them.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// What `role` says.
    pub fn new(role: &str, content: &str) -> Message {
        Message { role: role.to_owned(), content: content.to_owned() }
    }
}

/// The chat template of a model file.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

const NAME: &str = "template";

impl ChatTemplate {
    /// The template that `gguf` carries under `tokenizer.chat_template`; `Ok(None)` if it carries none.
    ///
    /// # Errors
    /// - [`Error::Template`] for a template that is no valid Jinja or too long.
    /// - [`Error::Engine`] if the key has another type than text.
    pub fn read(gguf: &Gguf<'_>, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>, Error> {
        let Some(source) = gguf.opt_str("tokenizer.chat_template")? else { return Ok(None) };
        let text = |id: Option<u32>| -> Result<String, Error> {
            id.map_or(Ok(String::new()), |id| Ok(tokenizer.decode(&[id])?))
        };
        ChatTemplate::new(source, text(tokenizer.begin())?, text(tokenizer.end())?).map(Some)
    }

    fn new(source: &str, bos: String, eos: String) -> Result<ChatTemplate, Error> {
        if source.len() > TEMPLATE_BYTES {
            return Err(Error::Template {
                problem: format!("{} bytes are too many, {TEMPLATE_BYTES} at most", source.len()),
            });
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| failed(&e))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        // As in Python, where nothing is not iterable, and text is: templates ask it of `tools` and of a message's content.
        environment.add_test("iterable", |value: &Value| {
            !value.is_none() && (value.as_str().is_some() || value.try_iter().is_ok())
        });
        environment.add_function("raise_exception", |reason: String| -> Result<String, minijinja::Error> {
            let refused = minijinja::Error::new(ErrorKind::InvalidOperation, "raise_exception");
            Err(refused.with_source(Refusal(reason)))
        });
        environment.add_template_owned(NAME, source.to_owned()).map_err(|e| failed(&e))?;
        Ok(ChatTemplate { environment, bos, eos })
    }

    /// The conversation as text, up to where the model is to answer.
    ///
    /// # Errors
    /// - [`Error::Refused`] if the template says so (`raise_exception`): a role it does not know, roles that do not alternate.
    /// - [`Error::Template`] if it uses something that is not there (`strftime_now`, say), or takes too long, or writes too
    ///   much.
    pub fn render(&self, messages: &[Message]) -> Result<String, Error> {
        let template = self.environment.get_template(NAME).map_err(|e| failed(&e))?;
        let mut text = Limited(Vec::new());
        let turn = |message: &Message| context! { role => message.role.as_str(), content => message.content.as_str() };
        let messages: Vec<Value> = messages.iter().map(turn).collect();
        let context = context! {
            messages,
            add_generation_prompt => true,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            // Templates ask `is not none` of them.
            tools => (),
            documents => (),
        };
        template.render_captured_to(context, &mut text).map_err(|e| failed(&e))?;
        String::from_utf8(text.0).map_err(|e| Error::Template { problem: e.to_string() })
    }

    /// Token ids of the conversation: special tokens are tokens, and the begin token comes first, once, where the file
    /// asks for it or the template writes it.
    ///
    /// What a message says is part of the same text, so a message that holds the text of a special token becomes that token, as in
    /// other programs.
    ///
    /// # Errors
    /// - Those of [`ChatTemplate::render`].
    /// - [`Error::Engine`] if the vocabulary cannot spell the text.
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>, Error> {
        Ok(tokenizer.encode_chat(&self.render(messages)?)?)
    }
}

/// What a template gave to `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn failed(error: &minijinja::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Refusal(reason)) = error.downcast_ref() {
            return Error::Refused { reason: reason.clone() };
        }
        cause = error.source();
    }
    let problem = match error.kind() {
        ErrorKind::OutOfFuel => format!("it takes more than {FUEL} steps"),
        ErrorKind::WriteFailure => format!("it writes more than {TEXT_BYTES} bytes"),
        _ => error.to_string(),
    };
    Error::Template { problem }
}

/// Text that may not become too long.
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > TEXT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, "<s>".to_owned(), "</s>".to_owned())
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn conversation() -> Vec<Message> {
        [("system", "Be brief. "), ("user", " Hello?"), ("assistant", "Hi."), ("user", "Why <s>?")]
            .map(|(role, content)| Message::new(role, content))
            .to_vec()
    }

    fn said(source: &str) -> String {
        match ChatTemplate::new(source, String::new(), String::new()).and_then(|t| t.render(&conversation()))
        {
            Ok(text) => panic!("{source} gave {text}"),
            Err(error) => error.to_string(),
        }
    }

    const CHATML: &str = "{% for message in messages %}\
        {% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}\
        {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\
        {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

    #[test]
    fn a_template_in_the_manner_of_chatml_frames_every_message() {
        assert_eq!(
            template(CHATML).render(&conversation()[..2]).expect("text"),
            "<|im_start|>system\nBe brief. <|im_end|>\n<|im_start|>user\n Hello?<|im_end|>\n<|im_start|>assistant\n"
        );
        assert_eq!(
            template(CHATML).render(&conversation()[1..2]).expect("text"),
            "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n Hello?<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn a_template_in_the_manner_of_llama_3_has_no_tools_and_no_clock() {
        let source = "{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now('%d %b %Y') %}
    {%- else %}
        {%- set date_string = '1 Jan 2000' %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + date_string + '\\n' }}
{%- if tools is not none %}{{- 'tools!' }}{%- endif %}
{{- system + '<|eot_id|>' }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
";
        assert_eq!(
            template(source).render(&conversation()[..2]).expect("text"),
            "<s><|start_header_id|>system<|end_header_id|>\n\n1 Jan 2000\nBe brief.<|eot_id|>\
             <|start_header_id|>user<|end_header_id|>\n\nHello?<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n"
        );
    }

    /// In the manner of Falcon 3: lines by role, the end token after each answer.
    const ROLES: &str = "{% for message in messages %}
{% if message.role == 'system' %}
{{ '<|system|>\\n' + message.content.strip() + '\\n' }}
{%- elif message.role == 'user' %}
{{ '<|user|>\\n' + message.content.strip() + '\\n' }}
{%- elif message.role == 'assistant' %}
{{ '<|assistant|>\\n' + message.content + ('' if loop.last else eos_token + '\\n') }}
{%- else %}
{{ raise_exception('no role ' ~ message.role) }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|assistant|>\\n' }}
{%- endif %}";

    #[test]
    fn lines_that_hold_only_blocks_leave_nothing_behind() {
        assert_eq!(
            template(ROLES).render(&conversation()).expect("text"),
            "<|system|>\nBe brief.\n<|user|>\nHello?\n<|assistant|>\nHi.</s>\n<|user|>\nWhy <s>?\n<|assistant|>\n"
        );
        let indented = "  {% if true %}\nyes\n  {% endif %}\nno";
        assert_eq!(template(indented).render(&[]).expect("text"), "yes\nno");
    }

    #[test]
    fn a_template_can_refuse_a_conversation() {
        let refused = template(ROLES).render(&[Message::new("tool", "42")]).expect_err("refused");
        assert!(matches!(&refused, Error::Refused { reason } if reason == "no role tool"), "{refused}");
    }

    #[test]
    fn methods_of_python_and_loops_that_end_early_work() {
        let source = "{% set found = namespace(text='') %}{% for m in messages %}{% if m['content'].startswith('Hi') %}\
                      {% set found.text = m.content.split('i')[-1] %}{% break %}{% endif %}{% endfor %}\
                      {{ found.text }}{{ messages[0].content.rstrip().upper() }}";
        assert_eq!(template(source).render(&conversation()).expect("text"), ".BE BRIEF.");
    }

    #[test]
    fn nothing_is_not_iterable_and_text_is() {
        let source = "{{ 1 if tools is iterable else 0 }}{{ 1 if bos_token is iterable else 0 }}";
        assert_eq!(template(source).render(&[]).expect("text"), "01");
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        for (source, expected) in [
            ("{{ strftime_now('%Y') }}", "strftime_now"),
            ("{{ messages | tojson }}", "tojson"),
            ("{{ messages[0].name.first }}", "undefined"),
            ("{% for m in messages %}", "template:1"),
            ("{% include 'other' %}", "include"),
        ] {
            let said = said(source);
            assert!(said.contains(expected) && said.contains("--prompt"), "{source}: {said}");
        }
    }

    #[test]
    fn templates_without_end_are_stopped() {
        let doubling = "{% set a = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set a.x = a.x ~ a.x %}{% endfor %}";
        assert!(said(doubling).contains("steps"), "{}", said(doubling));
        let nested = "{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}";
        assert!(said(nested).contains("steps"), "{}", said(nested));
        let long = "{% set x = 'a' * 1000000 %}{% for i in range(20) %}{{ x }}{% endfor %}";
        assert!(said(long).contains("bytes"), "{}", said(long));
        let recursive = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
        assert!(said(recursive).contains("recursion"), "{}", said(recursive));
        assert!(said(&"(".repeat(2 << 20)).contains("too many"));
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(said(&deep).contains("recursion"), "{}", said(&deep));
    }
}
