"""What models are judged by: qualities of every task, and of your own.

A quality gives a row of numbers for each example and says how they come to one figure. Those here are computed by
torchmetrics (the extra ``metrics``) where it gives a number for each example::

    compress.Workload(..., quality=[compress.quality.miou(num_classes=11)])

    def pitch_error(outputs, targets):  # a function of your own: a number for each example
        return (outputs - targets).abs()
"""

from compress.quality.agreement import artifact_answer_error as artifact_answer_error
from compress.quality.agreement import artifact_output_error as artifact_output_error
from compress.quality.agreement import output_error as output_error
from compress.quality.agreement import parity_of as parity_of
from compress.quality.classification import auroc as auroc
from compress.quality.classification import f1 as f1
from compress.quality.classification import topk_error as topk_error
from compress.quality.detection import mean_average_precision as mean_average_precision
from compress.quality.evaluation import Judged as Judged
from compress.quality.evaluation import judge_model as judge_model
from compress.quality.quality import OwnMetric as OwnMetric
from compress.quality.quality import Quality as Quality
from compress.quality.regression import cosine_similarity as cosine_similarity
from compress.quality.regression import mae as mae
from compress.quality.regression import r2 as r2
from compress.quality.regression import rmse as rmse
from compress.quality.segmentation import dice as dice
from compress.quality.segmentation import miou as miou
from compress.quality.signals import psnr as psnr
from compress.quality.signals import snr as snr
from compress.quality.signals import ssim as ssim
from compress.quality.text import cer as cer
from compress.quality.text import perplexity as perplexity
from compress.quality.text import wer as wer
