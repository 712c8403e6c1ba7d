"""Search for convolutional blocks by Q-learning, "BlockQNN" (Zhong et al., CVPR 2018).

Each folder or file imports only from lines below its own:

    estimate   what a search or final trainings will take
    workers    trainings run as processes, on this machine or on a Ray cluster
    search     ask for a candidate, tell its outcome; the journal from which a search goes on
    training, timm_model    a network is trained; a block's network as a model of timm
    agents, data, params, zoo    what proposes blocks; images; params.yaml; the published blocks
    network, settings, surrogate    a block's network; what params.yaml may say; predicted accuracy
    cost, storage    a network's parameters and work; files that survive a crash
    space, reward, seeds, errors    blocks; what a candidate is worth; random numbers; errors
"""

__version__ = "0.1.0"
