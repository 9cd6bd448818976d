"""The sentence that states the answer, in other languages; what it denies is none."""

import hypothesis.strategies as st
from forge import inputs
from hypothesis import given
from kinds import FEW, verdict

STATING = [
    "La respuesta es %s.",
    "La respuesta correcta es **%s**.",
    "La respuesta es %s porque 40+2=45.",
    "La réponse est %s.",
    "La réponse est donc %s.",
    "Die Antwort ist %s.",
    "Die Antwort lautet: %s",
    "A resposta é %s.",
    "A resposta final é %s.",
    "La risposta è %s.",
    "Ответ: %s",
    "**Ответ:** $%s$",
    "Het antwoord is %s.",
    "Odpowiedź: %s",
    "Svaret är %s.",
    "Jawaban: %s",
    "Đáp án là %s.",
    "정답: %s",
    "답은 %s",
    "Cevap: %s",
    "答案是%s。",
    "答え：%s",
    "最终答案：$%s$",
]
DENYING = [
    "La respuesta no es %s.", "La réponse n'est pas %s.", "Die Antwort ist nicht %s.", "A resposta não é %s.",
    "La risposta non è %s.", "Svaret är inte %s.", "Het antwoord is niet %s.",
]  # fmt: skip


@inputs(3 * FEW)
@given(st.sampled_from(STATING), st.integers(-999, 999), st.integers(1, 99))
def test_a_value_that_is_stated(sentence, value, more):
    text = f"3 + {more} = {3 + more}\n\n{sentence % value}"
    assert verdict(text, str(value)) == "correct"
    assert verdict(text, str(value + 1000)) != "correct"


@inputs(FEW)
@given(st.sampled_from(STATING), st.permutations("ABCD"))
def test_a_letter_that_is_stated(sentence, letters):
    text = sentence % letters[0]
    if "$" in sentence or "40+2" in sentence:
        return
    assert verdict(text, letters[0], kind="choice") == "correct"
    assert verdict(text, letters[1], kind="choice") == "wrong"


@inputs(FEW)
@given(st.sampled_from(DENYING), st.integers(2, 999))
def test_a_value_that_is_denied(sentence, value):
    assert verdict(sentence % value, str(value)) != "correct"


def test_a_number_in_words_and_in_digits():
    assert verdict("The answer is forty-two (42).", "42") == "correct"
    assert verdict("The answer is forty-two (42).", "2") == "wrong"
    assert verdict(r"\textbf{Answer: } 42", "42") == "correct"
    assert verdict('Answer: "B"', "B", kind="choice") == "correct"
