"""Ready-made architectures, each a few lines: call them, or hand them to ``widelimit.kernel``."""

from widelimit.nn.zoo._convnext import convnext as convnext
from widelimit.nn.zoo._gcn import GCN as GCN
from widelimit.nn.zoo._lenet import lenet as lenet
from widelimit.nn.zoo._myrtle import myrtle as myrtle
from widelimit.nn.zoo._resnet import resnet as resnet
from widelimit.nn.zoo._resnet import wide_resnet as wide_resnet
from widelimit.nn.zoo._rnn import RNN as RNN
from widelimit.nn.zoo._transformer import character_transformer as character_transformer
from widelimit.nn.zoo._transformer import vit as vit
