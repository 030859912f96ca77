"""Settings of the data: where it is, and how it becomes examples and batches."""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Ge, Interval, Len, MinLen, doc

from jaxtune.settings.fields import Amount, Count, Flat, Positive, Share, WholeAmount

Format = Literal["csv", "tsv", "json", "parquet", "conll", "text"]


@dataclasses.dataclass(frozen=True)
class FileSettings:
    """How the files of the data are read.

    Attributes:
      format: of files whose suffix says nothing or the wrong thing; `text` is a text a line.
      encoding: of text files.
      column_names: for tables without a header row.
      conll_columns: of a CoNLL file, that of the words and that of the tags, from 1, or from the
        last as -1; unset, they are found out.
      on_bad_row: a row that cannot be read or learnt from ends the run, or is left out and counted.
      max_image_pixels: width times height of an image; a larger one is refused before it is
        decoded, and all that are decoded at a time have no more together.
      max_row_characters: of one line of a csv, tsv or json lines file.
      max_expansion: how many times its own size a parquet file may take in memory, beyond 256 MiB.
    """

    format: Format | None = None
    encoding: str = "utf-8"
    column_names: tuple[str, ...] = ()
    conll_columns: tuple[int, ...] = ()
    on_bad_row: Literal["stop", "skip"] = "stop"
    max_image_pixels: Annotated[int, Interval(ge=1, le=178_956_970)] = 89_478_485
    max_row_characters: Count = 2**24
    max_expansion: Count = 100


@dataclasses.dataclass(frozen=True)
class SourceSettings:
    """Where the data is.

    Attributes:
      path: a file (csv, tsv, json lines, parquet), a folder of them with splits by file name, or
        the hub id of a dataset; of texts and images also a folder
        `[train|validation|test/]CLASS/FILE`.
      name: a configuration of a hub dataset.
      sha256: expected digest of the local data files (joined in the order of their names).
      files: how these are read.
    """

    path: Annotated[str, MinLen(1), doc("a file, a folder or a hub id of a dataset")] = ""
    name: str | None = None
    sha256: str | None = None
    files: Flat[FileSettings] = FileSettings()


@dataclasses.dataclass(frozen=True)
class ColumnSettings:
    """Which columns hold what is read and what is learnt.

    Attributes:
      text_columns: one, or two for pairs; of `embedding` an anchor, a positive and any number of
        negatives, of which a column may hold lists; of `reranking` a query and a passage, or a
        query, what is relevant to it and what is not; of `multiple_choice` a prompt and its
        choices. Of these three tasks they are found by their names where they are unset.
      image_column: images as `datasets` keeps them, or the paths of their files.
      label_column: class, number, list of classes, tags or answers, as the task has it.
      group_column: of `reranking`: rows with the same value there have passages of one query; None
        takes those with the same text of the query.
      label_columns: several targets of a regression, or one column of 0 and 1 for each class, in
        the place of `label_column`.
      label_lists: of `multi_label`: whether a list holds the `names` of the classes that apply, or
        is `multi_hot`, with 0 or 1 for each class; `auto` tells by the values.
      label_separator: of `multi_label`: stands between the classes in a field that is no JSON list.
      no_label: of `classification` and `few_shot`: what stands in the place of a label where a row
        has none, such as -1 or -; such rows are left out, and counted.
      on_unknown_class: what becomes of rows of an evaluation whose class training does not have:
        `stop` refuses them, `wrong` counts each as an error, and the loss leaves it out.
    """

    text_columns: Annotated[tuple[str, ...], Len(1, 100), doc("one or more names")] = ("text",)
    image_column: str = "image"
    label_column: str = "label"
    group_column: str | None = None
    label_columns: tuple[str, ...] = ()
    label_lists: Literal["auto", "names", "multi_hot"] = "auto"
    label_separator: Annotated[str, MinLen(1), doc("one or more characters")] = "|"
    no_label: tuple[str, ...] = ()
    on_unknown_class: Literal["stop", "wrong"] = "stop"


@dataclasses.dataclass(frozen=True)
class SplitSettings:
    """Which rows are learnt from and which are held out.

    Attributes:
      max_train_examples: a random subset (stratified by class) of so many.
      max_pairs: of `few_shot`: the most pairs of training texts that an epoch has, half of them of
        one class, half of two.
      max_eval_examples: the same for each of validation and test.
      class_sampling: of tasks with one class a row: how much oftener an epoch of training has the
        rows of rare classes, and how much rarer the others: a class of n rows comes up by
        n^(1 - this), so 0 leaves them as they are and 1 brings every class equally often.
      validation_size: where the data has no validation split, so much of the training split is
        held out; a share if below 1, else a number of rows.
      test_size: the same where the data has no test split; None goes without.
      split_seed: of the splits, subsets and pairs, apart from the run's own seed.
    """

    max_train_examples: Count | None = None
    max_pairs: Annotated[int, Ge(2)] = 4096
    max_eval_examples: Count | None = None
    class_sampling: Annotated[float, Interval(ge=0, le=1)] = 0.0
    validation_size: Positive = 0.1
    test_size: Positive | None = None
    split_seed: WholeAmount = 0


@dataclasses.dataclass(frozen=True)
class TokenSettings:
    """How texts become tokens, and these batches.

    Attributes:
      max_length: tokens of an example, special ones included; longer ones are cut. A language model
        joins its texts and cuts them into blocks of so many.
      layout: of training and evaluation: `packed` puts several examples into a row, so that little
        is padding; `bucketed` makes batches of like lengths and pads to one of a few, `padded` to
        one.
      token_dropout: the chance of each token of a training text to be hidden, anew in each epoch,
        behind the mask token or, without one, that of unknown words; of tasks on whole texts.
      mask_probability: of `masked_lm`: share of the words that are hidden and predicted.
      query_prompt: of `embedding`: what is put before each anchor, such as `query: `; None takes
        the prompt `query` of a folder of sentence-transformers, else none.
      document_prompt: of `embedding`: likewise before each other text, of the prompt `document`.
    """

    max_length: Annotated[int, Ge(3)] = 128
    layout: Literal["packed", "bucketed", "padded"] = "packed"
    token_dropout: Share = 0.0
    mask_probability: Annotated[float, Interval(gt=0, lt=1)] = 0.15
    query_prompt: str | None = None
    document_prompt: str | None = None


@dataclasses.dataclass(frozen=True)
class AnswerSettings:
    """How answers are found in a long context.

    Attributes:
      doc_stride: of `question_answering`: tokens that two windows on one long context share.
      max_answer_length: of `question_answering`: of a predicted answer, in tokens.
      n_best: of `question_answering`: answers to a question that are compared and reported.
      no_answer_threshold: of `question_answering`: a question has no answer where the score for
        that exceeds the best answer's by more than this, in nats.
      allow_no_answer: of `question_answering`: None allows it where the training data has
        questions without an answer.
    """

    doc_stride: WholeAmount = 64
    max_answer_length: Count = 30
    n_best: Count = 20
    no_answer_threshold: float = 0.0
    allow_no_answer: bool | None = None


@dataclasses.dataclass(frozen=True)
class AugmentationSettings:
    """Random changes to the images of training, drawn anew in each epoch.

    Attributes:
      crop: `none`; `pad`, after resizing: shifted by up to an eighth of each side, black beyond the
        edge; `resized`, in the place of resizing: a part of 8 % to 100 % of the area.
      flip: mirrors every other image, left to right.
      rand_augment_num_ops: how many operations RandAugment draws for an image; 0 for none.
      rand_augment_magnitude: their strength.
      mixup_alpha: images and labels of a batch are mixed in pairs, by a share drawn from
        Beta(alpha, alpha); 0 for no mixup.
      cutmix_alpha: the same, by pasting a box; with `mixup_alpha` too, each batch draws one of
        them; 0 for no cutmix.
    """

    crop: Literal["none", "pad", "resized"] = "none"
    flip: bool = False
    rand_augment_num_ops: WholeAmount = 0
    rand_augment_magnitude: Annotated[int, Interval(ge=0, le=30)] = 9
    mixup_alpha: Amount = 0.0
    cutmix_alpha: Amount = 0.0


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """What is learnt from.

    Attributes:
      source: where it is.
      columns: which columns hold what.
      splits: what is learnt from, and what is held out.
      tokens: of texts.
      answers: of questions.
      augmentation: of images.
    """

    source: Flat[SourceSettings] = SourceSettings()
    columns: Flat[ColumnSettings] = ColumnSettings()
    splits: Flat[SplitSettings] = SplitSettings()
    tokens: Flat[TokenSettings] = TokenSettings()
    answers: Flat[AnswerSettings] = AnswerSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
