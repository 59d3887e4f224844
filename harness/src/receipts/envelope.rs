//! DSSE envelopes: what a signed receipt is wrapped in. The receipt is the payload, unchanged to the byte.
//!
//! Source: [DSSE v1.0](https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md).

use super::error::{Error, Result};
use super::keys::{PrivateKey, PublicKey};
use super::parse;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the payload is: an in-toto statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The largest envelope that is read: a receipt of 8 MiB in base64, and its signatures.
pub const MAX_BYTES: usize = 16 << 20;
/// The most signatures that one envelope may hold.
pub const MAX_SIGNATURES: usize = 16;
/// An envelope is nested 3 deep; what is deeper than this is none.
const MAX_DEPTH: usize = 8;

/// A payload and its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The receipt's bytes.
    pub payload: Vec<u8>,
    /// At least one, unless it is being made.
    pub signatures: Vec<Signature>,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// What the signer says the key's id is; other programs leave it out.
    pub keyid: Option<String>,
    /// Ed25519.
    pub sig: [u8; 64],
}

/// An envelope as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSignature {
    #[serde(skip_serializing_if = "Option::is_none")]
    keyid: Option<String>,
    sig: String,
}

/// What is signed: `"DSSEv1" SP length(type) SP type SP length(payload) SP payload`.
pub fn pre_authentication_encoding(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

impl Envelope {
    /// An envelope without signatures yet.
    pub fn around(payload: Vec<u8>) -> Envelope {
        Envelope { payload, signatures: Vec::new() }
    }

    /// Adds the signature of `key`; that of a key that signed already is the same again and is not added twice.
    ///
    /// # Errors
    /// - [`Error::Envelope`] if there is no room for another.
    pub fn sign(&mut self, key: &PrivateKey) -> Result<()> {
        let sig = key.sign(&pre_authentication_encoding(&self.payload));
        if self.signatures.iter().any(|signature| signature.sig == sig) {
            return Ok(());
        }
        self.add(Signature { keyid: Some(key.public().id().as_str().to_owned()), sig })
    }

    /// Takes out signatures that name `key` and are not of it.
    pub fn drop_forged(&mut self, key: &PublicKey) {
        let message = pre_authentication_encoding(&self.payload);
        let id = key.id();
        self.signatures.retain(|s| s.keyid.as_deref() != Some(id.as_str()) || key.verifies(&message, &s.sig));
    }

    /// Adds a signature as it is.
    ///
    /// # Errors
    /// - [`Error::Envelope`] if there is no room for another.
    pub fn add(&mut self, signature: Signature) -> Result<()> {
        if self.signatures.len() == MAX_SIGNATURES {
            return Err(Error::Envelope(format!("it holds {MAX_SIGNATURES} signatures already")));
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// Canonical JSON (RFC 8785).
    ///
    /// # Errors
    /// - [`Error::Json`] if it cannot be written as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let signature = |signature: &Signature| WireSignature {
            keyid: signature.keyid.clone(),
            sig: STANDARD.encode(signature.sig),
        };
        super::canonical::to_bytes(&Wire {
            payload: STANDARD.encode(&self.payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: self.signatures.iter().map(signature).collect(),
        })
    }
}

/// Opens an envelope. `None` if the bytes are none: a receipt as it is, or not JSON at all.
///
/// # Errors
/// - what is wrong with an envelope.
pub fn open(bytes: &[u8]) -> Option<Result<Envelope, String>> {
    let parsed = parse_envelope(bytes)?;
    Some(match &parsed.duplicate {
        Some(key) => Err(format!("the key {key:?} stands twice in one object")),
        None => read(parsed.value),
    })
}

/// The JSON of an envelope, sound or not; `None` if the bytes are something else.
fn parse_envelope(bytes: &[u8]) -> Option<parse::Parsed> {
    if bytes.len() > MAX_BYTES || parse::depth(bytes, MAX_DEPTH) > MAX_DEPTH {
        return None;
    }
    let parsed = parse::parse(bytes).ok()?;
    let has = |key: &str| parsed.value.get(key).is_some();
    let is_envelope = !has("_type") && ["payload", "payloadType", "signatures"].into_iter().any(has);
    is_envelope.then_some(parsed)
}

fn read(value: Value) -> Result<Envelope, String> {
    let wire: Wire =
        serde_json::from_value(value.clone()).map_err(|error| format!("not a DSSE envelope: {error}"))?;
    // Structs are read from lists too, and absent keys from null: one form only.
    if serde_json::to_value(&wire).ok().as_ref() != Some(&value) {
        return Err("not a DSSE envelope: its objects have another form".to_owned());
    }
    if wire.payload_type != PAYLOAD_TYPE {
        return Err(format!("its payload is not of the type {PAYLOAD_TYPE}"));
    }
    let count = wire.signatures.len();
    if !(1..=MAX_SIGNATURES).contains(&count) {
        return Err(format!("{count} signatures, expected 1 to {MAX_SIGNATURES}"));
    }
    let payload = decode(&wire.payload).ok_or("its payload is not base64")?;
    // One around another: who opens one would take the other for the receipt.
    if parse_envelope(&payload).is_some() {
        return Err("its payload is an envelope".to_owned());
    }
    let signature = |(index, wire): (usize, WireSignature)| {
        let sig = decode(&wire.sig).ok_or_else(|| format!("signature {index} is not base64"))?;
        let length = sig.len();
        let sig = sig.try_into().map_err(|_| format!("signature {index} has {length} bytes, expected 64"))?;
        Ok(Signature { keyid: wire.keyid, sig })
    };
    let signatures = wire.signatures.into_iter().enumerate().map(signature).collect::<Result<_, String>>()?;
    Ok(Envelope { payload, signatures })
}

/// Base64 with padding in either alphabet; one spelling for the same bytes in each.
fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_the_encoding_of_the_standard() {
        // The example of the standard has another type; its shape is this.
        let encoded = pre_authentication_encoding(b"hello world");
        assert_eq!(encoded, b"DSSEv1 28 application/vnd.in-toto+json 11 hello world");
    }

    #[test]
    fn an_envelope_comes_back_as_it_went() {
        let mut envelope = Envelope::around(b"{}".to_vec());
        assert!(open(&envelope.to_bytes().unwrap()).unwrap().is_err(), "no signature");
        for seed in [1, 2, 2] {
            envelope.sign(&PrivateKey::from_seed(&[seed; 32])).unwrap();
        }
        assert_eq!(envelope.signatures.len(), 2, "one signature for a key");
        assert_eq!(open(&envelope.to_bytes().unwrap()), Some(Ok(envelope.clone())));
        (0..14).for_each(|seed| envelope.sign(&PrivateKey::from_seed(&[100 + seed; 32])).unwrap());
        assert!(envelope.sign(&PrivateKey::from_seed(&[3; 32])).is_err(), "no room");
    }

    #[test]
    fn other_programs_spellings_are_read_and_sloppy_ones_refused() {
        let mut envelope = Envelope::around(vec![0xfb, 0xff, 0xfe, 0x01]);
        envelope.sign(&PrivateKey::from_seed(&[1; 32])).unwrap();
        let text = String::from_utf8(envelope.to_bytes().unwrap()).unwrap();
        assert!(text.contains("\"+//+AQ==\""));
        let open = |text: &str| open(text.as_bytes());
        assert_eq!(open(&text.replace(',', " ,\n")), Some(Ok(envelope.clone())));
        assert_eq!(open(&text.replace("+//+AQ==", "-__-AQ==")), Some(Ok(envelope.clone())));
        for (from, to) in [
            ("+//+AQ==", "+//+AR=="),
            ("+//+AQ==", "+/_+AQ=="),
            ("+//+AQ==", "+//+AQ"),
            ("+//+AQ==", "+//+ AQ=="),
            ("in-toto", "in-tata"),
            ("\"payload\":", "\"payload\":\"\",\"payload\":"),
            ("\"payload\":", "\"more\":1,\"payload\":"),
            ("\"sig\":\"", "\"sig\":\"AAAA"),
            ("\"keyid\":", "\"keyid\":null,\"id\":"),
            ("\"signatures\":[", "\"signatures\":[],\"x\":["),
        ] {
            assert!(open(&text.replace(from, to)).is_some_and(|opened| opened.is_err()), "{to}");
        }
        for other in ["{}", "[1]", "{\"_type\":1,\"payload\":2}", "not JSON", "{\"payload\":"] {
            assert_eq!(open(other), None, "{other}");
        }
    }
}
