"""Makes `distillation.safetensors`: a student's loss and gradient beside its teacher, on torch.

    pip install torch==2.13.0 transformers==5.24.0 safetensors
    python tests/golden/make_distillation.py

The teacher is `families/bert-sequence`, the student its layers 0 and 2, with the negative of the
classifier's matrix, the batch that of its reference. The loss is 0.3 times the cross-entropy of the
labels, 0.7 times 3^2 KL of the softmaxes at temperature 3, and 0.5 times the mean squared error
between the student's hidden states 1 and 2 and the teacher's 2 and 3: the mean over the real tokens
of an example, then over examples. In the file: `teacher_logits`, `hard`, `soft`, `hidden`, `loss`,
and `grad/NAME` of every parameter.
"""

import re
from pathlib import Path

import torch
import transformers as t
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

HERE = Path(__file__).parent
FOLDER = HERE / "families" / "bert-sequence"
CHOSEN, TEMPERATURE = (0, 2), 3.0


def student_of(teacher):
    config = t.AutoConfig.from_pretrained(FOLDER, num_hidden_layers=len(CHOSEN))
    config._attn_implementation = "eager"
    student = t.BertForSequenceClassification(config)
    state = teacher.state_dict()

    def source(name):
        found = re.search(r"layer\.(\d+)\.", name)
        if found is None:
            return name
        start, stop = found.span(1)
        return f"{name[:start]}{CHOSEN[int(found[1])]}{name[stop:]}"

    student.load_state_dict({name: state[source(name)] for name in student.state_dict()})
    with torch.no_grad():
        student.classifier.weight.neg_()  # or they would nearly agree
    return student.eval()


def main():
    teacher = t.BertForSequenceClassification.from_pretrained(FOLDER, attn_implementation="eager")
    teacher.eval()
    student = student_of(teacher)
    reference = load_file(FOLDER / "reference.safetensors")
    names = ("input_ids", "attention_mask", "token_type_ids")
    batch = {name: reference[name] for name in names if name in reference}
    with torch.no_grad():
        wanted = teacher(**batch, output_hidden_states=True)
    found = student(**batch, output_hidden_states=True)
    hard = cross_entropy(found.logits, reference["labels"])
    soft = TEMPERATURE**2 * kl_div(
        log_softmax(found.logits / TEMPERATURE, -1),
        softmax(wanted.logits / TEMPERATURE, -1),
        reduction="batchmean",
    )
    mask = batch["attention_mask"].float()
    errors = [
        ((found.hidden_states[i] - wanted.hidden_states[j]) ** 2).mean(-1)
        for i, j in ((1, 2), (2, 3))
    ]
    hidden = sum(((e * mask).sum(1) / mask.sum(1)).mean() for e in errors) / 2
    loss = 0.3 * hard + 0.7 * soft + 0.5 * hidden
    loss.backward()
    values = {"teacher_logits": wanted.logits, "hard": hard, "soft": soft, "hidden": hidden}
    values |= {"loss": loss}
    values |= {f"grad/{name}": value.grad for name, value in student.named_parameters()}
    save_file(
        {name: value.detach().clone().contiguous() for name, value in values.items()},
        HERE / "distillation.safetensors",
    )
    print({name: values[name].item() for name in ("hard", "soft", "hidden", "loss")})


if __name__ == "__main__":
    main()
