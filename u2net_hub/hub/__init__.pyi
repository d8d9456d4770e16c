from .addresses import is_hub_id as is_hub_id
from .bundled import (
    CONFIG_NAME as CONFIG_NAME,
    WEIGHTS_DIR as WEIGHTS_DIR,
    list_bundled as list_bundled,
    list_models as list_models,
)
from .card import (
    PICTURE_NAME as PICTURE_NAME,
    Weights as Weights,
    render_card as render_card,
    validate_card as validate_card,
)
from .client import (
    call as call,
    make_client as make_client,
    redact as redact,
)
from .downloads import (
    SAVED_FILES as SAVED_FILES,
    download as download,
    refuse_existing as refuse_existing,
)
from .errors import (
    AccessDeniedError as AccessDeniedError,
    ConflictError as ConflictError,
    CorruptFileError as CorruptFileError,
    GatedRepoError as GatedRepoError,
    HubError as HubError,
    HubUnavailableError as HubUnavailableError,
    MissingFileError as MissingFileError,
    NotCachedError as NotCachedError,
    RepoNotFoundError as RepoNotFoundError,
    RevisionNotFoundError as RevisionNotFoundError,
    UnusableRepoError as UnusableRepoError,
)
from .family import (
    FAMILY as FAMILY,
    find_member as find_member,
)
from .layouts import (
    WEIGHTS_NAME as WEIGHTS_NAME,
    convert_line as convert_line,
)
from .loaders import (
    GRAPH_NAME as GRAPH_NAME,
    HANDLER_NAME as HANDLER_NAME,
    LAID_OUT as LAID_OUT,
    LOADER_FILES as LOADER_FILES,
    MODELING_NAME as MODELING_NAME,
    NETWORK_NAME as NETWORK_NAME,
    PROCESSOR_NAME as PROCESSOR_NAME,
    REQUIREMENTS_NAME as REQUIREMENTS_NAME,
    ExtraFiles as ExtraFiles,
    Loader as Loader,
    MakeExtra as MakeExtra,
    laid_out as laid_out,
)
from .pretrained import (
    Pretrained as Pretrained,
    load_network as load_network,
)
from .push import (
    BranchState as BranchState,
    Content as Content,
    Pushed as Pushed,
    check_repo_id as check_repo_id,
    push_files as push_files,
)
from .push_model import (
    CARD_NAME as CARD_NAME,
    FILES as FILES,
    folder_contents as folder_contents,
    push_folder as push_folder,
)
from .scratch import ScratchFolder as ScratchFolder
from .snapshot import check_revision as check_revision
from .source import Source as Source
from .sources import (
    name_weights as name_weights,
    resolve as resolve,
)
